"""Model facts come from a real process, once for each model, and failures are told and tried again."""

import asyncio
import sys

from pagoda_engine.contract import ExitCode, ModelFacts
from pagoda_operator.cluster.errors import NotFound
from pagoda_operator.controller.models import InspectProcess, ModelReader, ModelRef, outcome
from pagoda_operator.controller.ownership import ServiceKey
from pagoda_operator.core.facts import ModelUnreadable

FACTS = ModelFacts("LlamaForCausalLM", "bfloat16", 270, 90, 30, 9, 3, 64, 576, 49152, 2048)


class NoSecrets:
    """A cluster without Secrets; the reader asks a cluster for nothing else."""

    async def get(self, resource, namespace, name):
        raise NotFound(f'secrets "{name}" not found', status=404)


class OneSecret:
    async def get(self, resource, namespace, name):
        return {"data": {"HF_TOKEN": "aGZfc2VjcmV0Cg=="}}


def service(name="qwen", uri="hf://org/model", **model):
    return {"metadata": {"namespace": "default", "name": name}, "spec": {"model": {"uri": uri, **model}}}


def command(body, timeout=60):
    return InspectProcess([sys.executable, "-c", body], timeout)


async def read(reader, obj, changes):
    """The facts once they are known; `changes` gets the keys that the reader wakes."""
    assert reader.facts(obj) is None
    await changes.get()
    return reader.facts(obj)


async def test_facts_are_read_once_and_everybody_who_waits_is_woken(tmp_path):
    log = tmp_path / "runs"
    script = f"import sys; open({str(log)!r}, 'a').write(sys.argv[1] + '\\n'); print({FACTS.to_json()!r})"
    changes = asyncio.Queue()
    reader = ModelReader(NoSecrets(), changes.put_nowait, inspect=command(script))
    assert reader.facts(service("a")) is None
    assert reader.facts(service("b")) is None
    assert {await changes.get(), await changes.get()} == {ServiceKey("default", "a"), ServiceKey("default", "b")}
    assert reader.facts(service("a")) == FACTS
    assert reader.facts(service("c")) == FACTS, "a third service finds them there"
    assert log.read_text() == "hf://org/model\n"
    assert reader.retry_after(service("a")) is None
    await reader.close()


async def test_a_failure_is_told_with_its_last_line_and_whether_an_edit_is_needed():
    words = "pagoda inspect: error: no such model org/model; check the name"
    script = f"import sys; print({words!r}, file=sys.stderr); sys.exit({int(ExitCode.MODEL_NOT_FOUND)})"
    changes = asyncio.Queue()
    reader = ModelReader(NoSecrets(), changes.put_nowait, inspect=command(script))
    facts = await read(reader, service(), changes)
    assert facts == ModelUnreadable("no such model org/model; check the name", permanent=True)
    assert reader.retry_after(service()) > 0
    await reader.close()


async def test_a_process_that_can_t_be_started_is_a_failure_that_may_pass():
    """No memory for one more process, say; nobody is left waiting."""
    changes = asyncio.Queue()
    reader = ModelReader(NoSecrets(), changes.put_nowait, inspect=InspectProcess(["/does/not/exist"], 60))
    found = await read(reader, service(), changes)
    assert "No such file" in found.message
    assert not found.permanent
    assert reader.retry_after(service()) > 0


async def test_a_process_that_hangs_is_ended_and_told():
    changes = asyncio.Queue()
    reader = ModelReader(NoSecrets(), changes.put_nowait, inspect=command("import time; time.sleep(600)", timeout=0.2))
    facts = await read(reader, service(), changes)
    assert isinstance(facts, ModelUnreadable)
    assert "took more than" in facts.message
    assert not facts.permanent
    await reader.close()


async def test_the_token_comes_from_the_secret_that_the_service_names(monkeypatch):
    """And the operator's own token is nobody else's."""
    monkeypatch.setenv("HF_TOKEN", "the operator's own")
    script = "import os, sys; sys.exit('token=' + os.environ.get('HF_TOKEN', 'none'))"
    changes = asyncio.Queue()
    reader = ModelReader(OneSecret(), changes.put_nowait, inspect=command(script))
    named = await read(reader, service(tokenSecret={"name": "hf"}), changes)
    assert named.message == "token=hf_secret"
    unnamed = await read(reader, service(), changes)
    assert unnamed.message == "token=none"
    await reader.close()


async def test_a_secret_that_is_not_there_is_a_failure_that_may_pass():
    changes = asyncio.Queue()
    reader = ModelReader(NoSecrets(), changes.put_nowait, inspect=command("raise SystemExit('never run')"))
    facts = await read(reader, service(tokenSecret={"name": "hf", "key": "token"}), changes)
    assert "the token's Secret can't be read" in facts.message
    assert not facts.permanent
    reader = ModelReader(OneSecret(), changes.put_nowait, inspect=command("raise SystemExit('never run')"))
    facts = await read(reader, service(tokenSecret={"name": "hf", "key": "token"}), changes)
    assert "has no key 'token'" in facts.message
    await reader.close()


def test_who_may_read_a_model_is_part_of_what_is_known_of_it():
    assert ModelRef.of(service()) == ModelRef.of(service("other"))
    assert ModelRef.of(service()) != ModelRef.of(service(tokenSecret={"name": "hf"}))


def test_each_way_to_end_is_temporary_or_permanent():
    def permanent(code):
        return outcome(code, b"", b"why").permanent

    assert {code.name for code in ExitCode if code and permanent(code)} == {
        "USAGE",
        "MODEL_NOT_FOUND",
        "MODEL_CORRUPT",
        "MODEL_UNSUPPORTED",
        "ACCESS_DENIED",
    }
    assert outcome(0, FACTS.to_json().encode(), b"") == FACTS
    assert outcome(0, b"{}", b"").permanent
    assert outcome(-9, b"", b"").message == "pagoda inspect ended with code -9"
