"""`pagoda plan` shows what would be made and why, or says in one line what is wrong."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from pagoda_engine.contract import ExitCode
from pagoda_operator.commands.plan import main

FACTS = {
    "architecture": "Qwen2ForCausalLM",
    "dtype": "bfloat16",
    "weight_bytes": 15_231_233_024,
    "download_bytes": 15_242_694_808,
    "num_layers": 28,
    "num_attention_heads": 28,
    "num_kv_heads": 4,
    "head_dim": 128,
    "hidden_size": 3584,
    "vocab_size": 152064,
    "max_model_len": 32768,
}
NODE = {
    "kind": "Node",
    "metadata": {
        "name": "gpu-1",
        "labels": {"nvidia.com/gpu.product": "Tesla-T4", "nvidia.com/gpu.memory": "15360"},
    },
    "status": {"allocatable": {"nvidia.com/gpu": "4"}},
}


@pytest.fixture
def files(tmp_path):
    """Arguments of a plan that works; each file may be written anew."""
    service = {
        "apiVersion": "pagoda.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "qwen"},
        "spec": {"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}},
    }
    (tmp_path / "service.yaml").write_text(yaml.safe_dump(service))
    (tmp_path / "nodes.yaml").write_text(yaml.safe_dump({"kind": "List", "items": [NODE]}))
    (tmp_path / "facts.json").write_text(json.dumps(FACTS))
    return tmp_path


def argv(files, *, nodes=True):
    paths = ["-f", str(files / "service.yaml"), "--model-facts", str(files / "facts.json")]
    return [*paths, "--nodes", str(files / "nodes.yaml")] if nodes else paths


def test_manifests_go_to_stdout_and_the_arithmetic_to_stderr(files, capsys):
    assert main(argv(files)) == 0
    out, err = capsys.readouterr()
    kinds = [document["kind"] for document in yaml.safe_load_all(out)]
    assert kinds == ["ServiceAccount", "PersistentVolumeClaim", "Service", "PodDisruptionBudget", "Deployment"]
    assert err.startswith("qwen: Planned: 2x T4 for each replica")
    assert "  KV per token: 2 x 28 layers x 2 heads x 128 x 2 bytes = 28672 bytes\n" in err
    assert "  rejected 1x T4: 13.5 GiB usable - 14.2 GiB weights" in err


def test_without_nodes_the_plan_is_for_cpus(files, capsys):
    assert main(argv(files, nodes=False)) == 0
    assert "cpu for each replica" in capsys.readouterr().err


def test_what_can_t_be_planned_ends_with_the_arithmetic_and_a_failure(files, capsys):
    (files / "facts.json").write_text(json.dumps({**FACTS, "weight_bytes": 900 << 30}))
    assert main(argv(files)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "qwen: DoesNotFit: " in err
    assert "rejected 4x T4: " in err


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("service.yaml", "kind: Pod\n", "holds no InferenceService"),
        ("service.yaml", "a: [", "is not YAML"),
        (
            "service.yaml",
            "{apiVersion: pagoda.dev/v1alpha1, kind: InferenceService, metadata: {name: a.b}, spec: {model: {uri: 'hf://a/b'}}}",
            "must be a DNS-1035 label",
        ),
        ("nodes.yaml", "kind: List\nitems: []\n", "holds no Node"),
        ("facts.json", "{}", "not a model facts document"),
    ],
)
def test_unusable_input_is_one_line_that_names_the_fix(files, capsys, file, text, words):
    (files / file).write_text(text)
    assert main(argv(files)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pagoda plan: error: ")
    assert words in err
    assert err.count("\n") == 1


def test_a_file_that_is_not_there_is_named(capsys, tmp_path):
    assert main(["-f", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err


class Nothing(BaseHTTPRequestHandler):
    """An index that has no package."""

    def do_GET(self):
        self.send_error(404)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def empty_index(monkeypatch):
    """A package index on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_that_can_t_be_read_ends_as_inspect_does(files, capsys, empty_index):
    """The real `pagoda inspect`; its words and its exit code are passed on."""
    service = yaml.safe_load((files / "service.yaml").read_text())
    service["spec"]["model"]["uri"] = "pypi://no-such-model@1.0/model.gguf"
    (files / "service.yaml").write_text(yaml.safe_dump(service))
    assert main(["-f", str(files / "service.yaml")]) == ExitCode.MODEL_NOT_FOUND
    error = capsys.readouterr().err
    assert error.startswith("pagoda plan: error: ")
    assert "no-such-model" in error
    assert "pagoda inspect" not in error
    assert error.count("\n") == 1


def test_the_command_loads_no_torch(files):
    ask = "sys.exit('torch' in sys.modules)"
    code = f"import sys; from pagoda_operator.commands.plan import main; main({argv(files)!r}); {ask}"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
