"""Reasons are stable words: each that the code can say is in the table, and the table has no other."""

import ast
from pathlib import Path

from pagoda_engine.contract import ExitCode, Stage
from pagoda_operator.core import pods, reasons
from pagoda_operator.core.reasons import REASONS

PACKAGE = Path(reasons.__file__).parents[1]
SAYERS = {"yes": 0, "no": 0, "unknown": 0, "Unplaced": 0, "Finding": 1, "_missing": 1}
"""Functions and classes that take a reason, and as which argument."""


def literals(node):
    """The strings that an expression may be: of a condition both."""
    if isinstance(node, ast.IfExp):
        return literals(node.body) | literals(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def spoken():
    """Reasons given to a sayer, in all of the operator."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Assign) and any(getattr(name, "id", "") == "reason" for name in node.targets):
                yield from literals(node.value)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SAYERS:
                place = SAYERS[node.func.id]
                if len(node.args) > place:
                    yield from literals(node.args[place])


def strings():
    """Every string of the operator's code, the table's own apart."""
    for file in PACKAGE.rglob("*.py"):
        if file != Path(reasons.__file__):
            yield from (n.value for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Constant))


def test_every_reason_that_is_said_has_its_meaning():
    ends = {code.reason for code in ExitCode if code != ExitCode.OK}
    waits = {pods.IMAGE_PULL_FAILED, pods.CONTAINER_CONFIG, pods.UNSCHEDULABLE, pods.KILLED}
    stages = {"PullingModel", "LoadingWeights", "WarmingUp", "Starting"}
    assert {"".join(map(str.capitalize, stage.value.split())) for stage in Stage} >= stages
    missing = (set(spoken()) | ends | waits | stages) - REASONS.keys()
    assert not missing, f"write what they mean into {Path(reasons.__file__).name}: {sorted(missing)}"


def test_the_table_has_no_reason_that_nobody_says():
    made = {code.reason for code in ExitCode} | {"".join(map(str.capitalize, stage.value.split())) for stage in Stage}
    assert not REASONS.keys() - set(strings()) - made


def test_reasons_are_words_and_meanings_are_sentences_that_go_on():
    """As the CRD has it; meanings begin small, since a table quotes them behind the reason."""
    for reason, meaning in REASONS.items():
        assert reason.isalnum(), reason
        assert reason[0].isupper(), reason
        assert not meaning.endswith("."), reason
