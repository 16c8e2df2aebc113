"""What a person sees while a service starts, and when waiting is given up."""

import io

import pytest

from pagoda_engine.contract import ExitCode
from pagoda_operator.local.progress import ProgressLine
from pagoda_operator.local.verdict import failure, is_serving


def service(*, ready: str = "False", planned: str = "True", generation: int = 1, **status) -> dict:
    conditions = [
        {"type": "Ready", "status": ready, "reason": "R", "message": "why; do this", "observedGeneration": generation},
        {"type": "Planned", "status": planned, "reason": "P", "message": "7 does not divide 8; choose another"},
    ]
    return {"metadata": {"name": "x", "generation": 1}, "status": {"conditions": conditions, **status}}


def crashed(code: int) -> dict:
    return {"reason": "Reason", "message": "last words", "exitCode": code, "pod": "x-1"}


def pod(**waiting) -> dict:
    return {"status": {"containerStatuses": [{"state": {"waiting": waiting} if waiting else {"running": {}}}]}}


def test_service_is_serving_when_ready_by_its_current_spec():
    assert is_serving(service(ready="True"))
    assert not is_serving(service(ready="True", generation=0))
    assert not is_serving({"metadata": {"name": "x", "generation": 1}})


def test_service_that_is_on_its_way_has_hope():
    assert failure(service(planned="Unknown"), []) is None
    assert failure(service(), [pod()]) is None
    assert failure(service(lastFailure=crashed(ExitCode.CRASHED)), [pod()]) is None, "it is restarted once more"
    assert failure(service(), [pod(reason="CrashLoopBackOff")]) is None, "the status does not tell why yet"


def test_unplanned_service_fails_with_reason_and_fix():
    failed = failure(service(planned="False"), [])
    assert failed.lines == ("x is not ready: P: 7 does not divide 8; choose another",)
    assert failed.exit_code == ExitCode.CRASHED


@pytest.mark.parametrize("code", [ExitCode.MODEL_CORRUPT, ExitCode.OUT_OF_MEMORY, ExitCode.PORT_IN_USE])
def test_hopeless_exit_code_fails_at_once_and_is_passed_on(code):
    failed = failure(service(lastFailure=crashed(code)), [pod()])
    assert failed.exit_code == code
    assert failed.lines == (
        "x is not ready: R: why; do this",
        f"last failure: Reason (pod x-1, exit code {int(code)}): last words",
    )


def test_last_words_are_not_said_twice():
    told = service(lastFailure=crashed(ExitCode.USAGE) | {"message": "why"})
    assert failure(told, []).lines[1] == "last failure: Reason (pod x-1, exit code 2)"


def test_second_crash_fails():
    failed = failure(service(lastFailure=crashed(139)), [pod(reason="CrashLoopBackOff")])
    assert failed.exit_code == ExitCode.CRASHED


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_log_gets_a_line_a_change_and_a_sign_of_life():
    now, out = 0.0, io.StringIO()
    line = ProgressLine(out, lambda: now)
    for now, text in ((0.0, "a"), (0.2, "a"), (1.0, "b"), (5.9, "b"), (6.1, "b"), (7.0, "b")):  # noqa: B007
        line.show(text)
    line.finish()
    assert out.getvalue().splitlines() == ["[   0 s] a", "[   1 s] b", "[   6 s] b"]


def test_terminal_gets_one_live_line_that_is_gone_at_the_end():
    out = Terminal()
    line = ProgressLine(out, lambda: 3.0)
    line.show("a")
    line.show("x" * 1000)
    line.finish()
    assert "\n" not in out.getvalue()
    assert out.getvalue().startswith("\r\x1b[K[   0 s] a")
    assert out.getvalue().endswith("\r\x1b[K")
    assert "x" * 500 not in out.getvalue(), "a line that wraps could not be cleared"
