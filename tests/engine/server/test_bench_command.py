"""`pagoda bench` against a real server: exact counts, and one line where it can't be measured."""

import json

import pytest

from pagoda_engine.benchmark.summary import Answer, Summary
from pagoda_engine.contract import ExitCode
from pagoda_engine.entrypoints import bench

SMALL = ["--concurrency", "2", "--requests", "3", "--prompt-tokens", "12", "--output-tokens", "5"]


def test_every_token_is_counted(server, capsys):
    """Three answers of five tokens each, by the server's own count."""
    assert bench.main(["--url", server.url, "--vocabulary-size", "400", "--json", *SMALL]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert (document["requests"], document["output_tokens"], document["model"]) == (3, 15, "tiny")
    assert document["tokens_per_second"] == pytest.approx(15 / document["seconds"])
    assert 0 < document["time_to_first_token"]["p50"] <= document["time_to_first_token"]["p99"]


def test_the_table_has_throughput_and_latencies(server, capsys):
    assert bench.main(["--url", server.url, "--vocabulary-size", "400", *SMALL]) == ExitCode.OK
    out = capsys.readouterr().out
    for name in ("output tokens/s", "time to first token ms", "inter-token latency ms"):
        assert name in out


@pytest.mark.parametrize(
    ("arrivals", "row"),
    [
        ((1.0, 1.01, 1.03), "inter-token latency ms       15.0      10.0      20.0"),
        ((1.0,), "inter-token latency ms none: each answer came in one message"),
    ],
)
def test_the_last_row_tells_of_gaps_or_that_there_are_none(arrivals, row):
    """Tokens that a fast server sends together have no time between them."""
    summary = Summary.of([Answer(sent=0.5, arrivals=arrivals, tokens=5)])
    assert bench.as_table(summary).splitlines()[-1] == row


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--vocabulary-size", "4000"], "400"),  # token ids that the model does not have
        (["--vocabulary-size", "400", "--output-tokens", "4000"], "400"),  # longer than the model's context
        (["--vocabulary-size", "400", "--model", "other"], "404"),
    ],
)
def test_a_server_that_refuses_is_quoted(server, capsys, argv, said):
    """One line that names the status and the server's own words."""
    assert bench.main(["--url", server.url, *SMALL, *argv]) == ExitCode.CRASHED
    err = capsys.readouterr().err
    assert f"the server answered {said}" in err


def test_a_server_that_is_not_there_is_named(capsys):
    assert bench.main(["--url", "http://127.0.0.1:9", *SMALL]) == ExitCode.CRASHED
    assert "--url http://127.0.0.1:9 lists no models" in capsys.readouterr().err


def test_a_number_out_of_range_is_wrong_use(capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(["--concurrency", "0"])
    assert ended.value.code == ExitCode.USAGE
    assert "concurrency is 0" in capsys.readouterr().err
