"""When pods of a service ended is remembered, since the cluster forgets them."""

from datetime import UTC, datetime, timedelta

from pagoda_operator.controller.departures import Departures
from pagoda_operator.controller.ownership import ServiceKey

KEY = ServiceKey("default", "qwen")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STAYS = {"metadata": {"name": "a"}}
LEAVES = {"metadata": {"name": "b", "deletionTimestamp": "2026-01-02T03:14:05Z"}}


def at(seconds):
    return NOW + timedelta(seconds=seconds)


def test_the_moment_is_when_the_last_one_was_first_seen_gone():
    """However long ago it was looked at before that; and it stays that moment until another one leaves."""
    departures = Departures()
    assert departures.last(KEY, [STAYS], at(0)) is None
    assert departures.last(KEY, [STAYS, LEAVES], at(1)) == at(1)
    assert departures.last(KEY, [STAYS], at(400)) == at(400)
    assert departures.last(KEY, [STAYS], at(500)) == at(400)
    assert departures.last(KEY, [STAYS, LEAVES], at(600)) == at(600)
    assert departures.last(ServiceKey("default", "other"), [STAYS], at(601)) is None


def test_a_service_that_is_gone_is_forgotten():
    departures = Departures()
    departures.last(KEY, [LEAVES], at(0))
    departures.forget(KEY)
    assert departures.last(KEY, [], at(1)) is None
