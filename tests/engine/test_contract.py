"""The seam between operator and engine, from the engine's side: what one half writes the other half reads."""

import dataclasses
import json
import subprocess
import sys
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda_engine.contract import EngineArgs, ExitCode, ModelFacts, Progress, Stage

DEFAULTS = EngineArgs(model="m")
# Values of flags and the positional as a pod's spec can hold them; a flag's own name is no value.
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
_WORD = _TEXT.filter(lambda text: not text.startswith("-"))


def _values(field):
    """Any value of a field that `problem()` finds nothing wrong with, or a few that it does."""
    if choices := field.metadata.get("choices"):
        return st.sampled_from(choices)
    kind = str(field.type)
    if kind == "bool":
        return st.booleans()
    if kind.startswith("tuple"):
        return st.lists(_WORD, max_size=3).map(tuple)
    numbers = {
        "gpu_memory_utilization": st.floats(0.01, 1),
        "port": st.integers(0, 65535),
        "shutdown_timeout": st.floats(0, 1e6),
        "drain_delay": st.floats(0, 1e6),
    }
    if field.name in numbers:
        return numbers[field.name]
    values = st.integers(1, 1 << 40) if "int" in kind else _WORD
    return st.one_of(st.none(), values) if "None" in kind else values


ARGS = st.builds(EngineArgs, **{field.name: _values(field) for field in dataclasses.fields(EngineArgs)})


@given(ARGS)
def test_from_argv_undoes_to_argv(args):
    """Whatever the operator writes into a pod's command, the engine reads back as the same arguments."""
    assert EngineArgs.from_argv(args.to_argv()) == args


def test_an_argv_holds_only_what_differs_from_the_defaults():
    """A pod template must not change when a default of a later version does."""
    assert DEFAULTS.to_argv() == ["m"]
    args = dataclasses.replace(DEFAULTS, max_model_len=128, served_model_name=("a", "b"), port=1)
    assert args.to_argv() == ["m", "--served-model-name", "a", "b", "--port", "1", "--max-model-len", "128"]


def test_every_flag_has_help_and_a_default():
    """`pagoda serve --help` is made from the fields."""
    text = EngineArgs.parser().format_help()
    for field in dataclasses.fields(EngineArgs)[1:]:
        assert "--" + field.name.replace("_", "-") in text
        assert field.metadata["help"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "required: model"),
        (["m", "--dtype", "int3"], "invalid choice: 'int3'"),
        (["m", "--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["m", "--max-model", "1"], "unrecognized arguments: --max-model"),
        (["m", "--port", "http"], "--port: invalid int value: 'http'"),
        (["m", "--max-num-seqs", "0"], "--max-num-seqs is 0; it must be at least 1"),
    ],
)
def test_arguments_that_cannot_be_used_end_with_the_usage_code(argv, said, capsys):
    """The last line of stderr says which and why; abbreviations are refused, for they break with the next flag."""
    with pytest.raises(SystemExit) as exit_:
        EngineArgs.from_argv(argv)
    assert exit_.value.code == ExitCode.USAGE
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"port": 0}, None),
        ({"gpu_memory_utilization": 1.0}, None),
        ({"max_num_queued_reqs": 0}, None),
        ({"block_size": 0}, "--block-size is 0"),
        ({"max_num_seqs": -1}, "--max-num-seqs is -1"),
        ({"max_num_batched_tokens": 0}, "--max-num-batched-tokens is 0"),
        ({"tensor_parallel_size": 0}, "--tensor-parallel-size is 0"),
        ({"max_model_len": 0}, "--max-model-len is 0"),
        ({"gpu_memory_utilization": 0.0}, "--gpu-memory-utilization is 0.0"),
        ({"gpu_memory_utilization": 1.1}, "--gpu-memory-utilization is 1.1"),
        ({"gpu_memory_utilization": float("nan")}, "--gpu-memory-utilization is nan"),
        ({"port": 65536}, "--port is 65536"),
        ({"port": -1}, "--port is -1"),
        ({"shutdown_timeout": -0.1}, "--shutdown-timeout is -0.1"),
        ({"drain_delay": -1.0}, "--drain-delay is -1.0"),
        ({"max_num_queued_reqs": -1}, "--max-num-queued-reqs is -1"),
    ],
)
def test_a_problem_names_flag_value_and_fix(changes, said):
    """None where there is none; else a sentence that can stand alone."""
    problem = dataclasses.replace(DEFAULTS, **changes).problem()
    if said is None:
        assert problem is None
    else:
        assert problem.startswith(said)
        assert "; it must" in problem


_NUMBER = st.one_of(st.none(), st.floats(0, 1e12))
_COUNT = st.one_of(st.none(), st.integers(0, 1 << 60))
PROGRESS = st.builds(Progress, st.sampled_from(Stage), _NUMBER, _COUNT, _COUNT, _NUMBER, st.text())


@given(PROGRESS)
def test_a_progress_document_is_read_as_it_was_written(progress):
    """What a pod's /ready says is what the operator knows."""
    assert Progress.from_json(progress.to_json()) == progress
    assert Progress.from_json(progress.to_json().encode()) == progress


def test_a_later_versions_progress_is_understood():
    """Fields that are not known yet are left out: operator and engine are upgraded one after the other."""
    document = {**json.loads(Progress(Stage.LOADING, 43.0).to_json()), "shards": 3}
    assert Progress.from_json(json.dumps(document)) == Progress(Stage.LOADING, 43.0)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "{}", '{"percent": 1}', '{"stage": "dancing"}', '{"stage": "starting", "percent": NaN}'],
)
def test_what_is_no_progress_document_is_a_value_error(text):
    """Another program may listen on a pod's port."""
    with pytest.raises(ValueError, match=r".+"):
        Progress.from_json(text)


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(Stage.STARTING), "starting"),
        (Progress(Stage.LOADING, 43.2), "loading weights 43 %"),
        (Progress(Stage.PULLING, 7.0, message="1 of 9 GB"), "pulling model 7 %: 1 of 9 GB"),
        (Progress(Stage.FAILED, message="no GPU"), "failed: no GPU"),
    ],
)
def test_progress_reads_as_a_line(progress, text):
    """As people see it in logs and in a service's status."""
    assert str(progress) == text


_HINTS = typing.get_type_hints(ModelFacts)
FACTS = st.builds(ModelFacts, **{n: st.text() if t is str else st.integers(0, 1 << 50) for n, t in _HINTS.items()})


@given(FACTS)
def test_model_facts_are_read_as_they_were_written(facts):
    """The operator reads them from another process' stdout."""
    assert ModelFacts.from_json(facts.to_json()) == facts


def test_facts_of_a_later_version_are_understood_and_missing_ones_named():
    """Unknown fields are left out; a missing one is a ValueError with its name."""
    facts = ModelFacts("LlamaForCausalLM", "bfloat16", 2, 3, 4, 5, 5, 6, 7, 8, 9)
    document = json.loads(facts.to_json())
    assert ModelFacts.from_json(json.dumps({**document, "experts": 8})) == facts
    del document["num_layers"]
    with pytest.raises(ValueError, match="num_layers"):
        ModelFacts.from_json(json.dumps(document))


def test_exit_codes_are_distinct_and_leave_the_shells_alone():
    """0, 1 and 2 mean what they mean everywhere; the others are far from 126 and above, which shells use."""
    codes = [code.value for code in ExitCode]
    assert len(set(codes)) == len(codes)
    assert (ExitCode.OK, ExitCode.CRASHED, ExitCode.USAGE) == (0, 1, 2)
    assert all(10 <= code < 100 for code in codes[3:])
    assert ExitCode.OUT_OF_MEMORY.reason == "OutOfMemory"


def test_the_contract_needs_only_the_standard_library():
    """The operator's image carries it without the engine's packages."""
    code = "import sys; before = set(sys.modules); import pagoda_engine.contract\n"
    code += "new = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
    code += "print(sorted(new - sys.stdlib_module_names))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "['pagoda_engine']"
