"""Patience, messages without secrets, and the meter's arithmetic."""

import pytest

from pagoda_engine.contract import Progress, Stage
from pagoda_engine.source.meter import Meter, size_text
from pagoda_engine.source.web import Patience, Web, redact


def test_pauses_double_up_to_the_longest_and_heed_the_server():
    """With jitter below, never above; Retry-After counts, but not for hours."""
    patience = Patience(attempts=9, first_pause=1.0, longest_pause=20.0)
    for failures, expected in enumerate([1, 2, 4, 8, 16, 20, 20], start=1):
        assert 0.75 * expected <= patience.pause(failures) <= expected
    assert patience.pause(1, asked=7.0) == 7.0
    assert patience.pause(1, asked=3600.0) == 20.0


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://user:pw@host:8/p?token=x#sha256=y", "https://host:8/p"),
        ("http://host/p", "http://host/p"),
    ],
)
def test_urls_in_messages_carry_no_secrets(url, expected):
    """Signed queries and passwords stay out of logs and out of a pod's status."""
    assert redact(url) == expected


def test_a_range_read_gives_the_bytes_and_the_whole_size(index, impatient):
    """At the end of a file it gives what there is; without ranges it gives None and reads nothing."""
    [(name, data)] = index.wheels.items()
    url = f"{index.url}/files/{name}"
    with Web(impatient) as web:
        assert web.read_range(url, 10, 5) == (data[10:15], len(data))
        assert web.read_range(url, len(data) - 2, 100) == (data[-2:], len(data))
        index.weather.ranges = False
        assert web.read_range(url, 10, 5) is None


class Clock:
    """Time that moves when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_the_estimate_follows_the_rate_of_the_last_seconds():
    """100 B/s, then 10 B/s: after the window has passed, the estimate is by the new rate."""
    clock, seen = Clock(), []
    meter = Meter(10_000, seen.append, clock)
    for _ in range(20):
        clock.now += 1
        meter.add(100)
    assert seen[-1].eta_seconds == pytest.approx((10_000 - 2_000) / 100)
    for _ in range(20):
        clock.now += 1
        meter.add(10)
    assert seen[-1] == Progress(Stage.PULLING, 22.0, 2200, 10_000, pytest.approx(780.0), "2.2 kB of 10.0 kB, 10 B/s")


def test_bytes_of_an_earlier_try_are_done_but_say_nothing_of_the_rate():
    """Half a model that is there already is not a sign of a fast network."""
    clock, seen = Clock(), []
    meter = Meter(1000, seen.append, clock)
    meter.have(500)
    assert (seen[-1].percent, seen[-1].eta_seconds) == (50.0, None)
    clock.now += 10
    meter.add(100)
    assert seen[-1].eta_seconds == pytest.approx(40.0)


def test_reports_come_at_most_five_times_a_second_and_always_at_the_end():
    """However small the pieces of the network are."""
    clock, seen = Clock(), []
    meter = Meter(1000, seen.append, clock)
    for _ in range(1000):
        clock.now += 0.001
        meter.add(1)
    assert len(seen) <= 7
    assert seen[-1].bytes_done == 1000


def test_an_unknown_size_has_no_percent():
    """Bytes are counted all the same."""
    seen = []
    Meter(None, seen.append).add(5)
    assert (seen[-1].percent, seen[-1].bytes_done, seen[-1].eta_seconds) == (None, 5, None)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (92_871_040, "92.9 MB"), (270e6, "270 MB"), (14.2e9, "14.2 GB")],
)
def test_sizes_are_written_as_registries_write_them(count, text):
    """Decimal units, three digits."""
    assert size_text(count) == text
