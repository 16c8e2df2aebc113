"""What a batch of answers comes to."""

import pytest

from pagoda_engine.benchmark.summary import Answer, Latency, Summary


def test_throughput_counts_tokens_from_the_first_request_to_the_last_token():
    """Two tokens that arrive in one message are two tokens."""
    answers = [Answer(10.0, (11.0, 12.0), 3), Answer(10.5, (11.0, 15.0), 2)]
    summary = Summary.of(answers)
    assert (summary.output_tokens, summary.seconds) == (5, 5.0)
    assert summary.tokens_per_second == 1.0


def test_latencies_are_each_requests_own():
    summary = Summary.of([Answer(10.0, (11.0, 11.5, 12.5), 3), Answer(20.0, (20.5, 21.0), 2)])
    assert summary.time_to_first_token == Latency(mean=0.75, p50=0.5, p99=1.0)
    assert summary.inter_token_latency == Latency(mean=pytest.approx(2 / 3), p50=0.5, p99=1.0)


def test_percentiles_are_values_that_were_seen():
    """Nearest rank: the least value that at least so many do not exceed."""
    latency = Latency.of([float(value) for value in range(100, 0, -1)])
    assert (latency.p50, latency.p99) == (50.0, 99.0)


def test_answers_of_one_token_have_no_latency_between_tokens():
    assert Summary.of([Answer(0.0, (1.0,), 1)]).inter_token_latency is None


def test_no_values_have_no_latency():
    with pytest.raises(ValueError, match="nothing to summarise"):
        Latency.of([])
