"""Settings are read from camelCase, and what can't be used is named."""

import json
import re

import pytest

from pagoda_operator.core.settings import Settings


def test_settings_are_read_from_yaml_and_json(tmp_path):
    document = {"engineImage": "e:1", "drainDelay": 3, "engineEnv": [{"name": "A", "value": "b"}], "local": True}
    (tmp_path / "s.json").write_text(json.dumps(document))
    settings = Settings.load(tmp_path / "s.json")
    assert (settings.engine_image, settings.drain_delay, settings.local) == ("e:1", 3, True)
    assert settings.engine_env == ({"name": "A", "value": "b"},)
    (tmp_path / "s.yaml").write_text("engineImage: e:1\ndrainDelay: 3\n")
    assert Settings.load(tmp_path / "s.yaml").engine_image == "e:1"


def test_no_settings_are_the_defaults():
    assert Settings.from_document({}) == Settings()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"engineimage": "x"}, "unknown key 'engineimage'; known are bindHost, drainDelay"),
        ({"enginePort": "8000"}, "enginePort is '8000'; it must be a whole number"),
        ({"enginePort": True}, "enginePort is True; it must be a whole number"),
        ({"drainDelay": "long"}, "drainDelay is 'long'; it must be a number"),
        ({"local": "yes"}, "local is 'yes'; it must be a boolean"),
        ({"tolerations": {}}, "tolerations is {}; it must be a list"),
    ],
)
def test_what_can_t_be_used_is_named(document, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Settings.from_document(document)


def test_a_file_that_holds_no_mapping_is_refused(tmp_path):
    (tmp_path / "s.yaml").write_text("- a\n")
    with pytest.raises(ValueError, match="must be a mapping of settings"):
        Settings.load(tmp_path / "s.yaml")
