"""The schedule is a floor under the replicas, by the clock of its own time zone."""

from datetime import UTC, datetime, timedelta

import pytest

from pagoda_operator.api.autoscaling import Autoscaling
from pagoda_operator.core.plan import LONGEST_SLEEP
from pagoda_operator.core.schedule import floor

DAY = {"start": "0 8 * * MON-FRI", "end": "0 18 * * MON-FRI", "minReplicas": 3}


def autoscaling(*entries, least=1):
    return Autoscaling.model_validate({"minReplicas": least, "maxReplicas": 9, "schedule": list(entries)})


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "least", "until"),
    [
        ("2026-01-02 07:59:59", 1, "2026-01-02 08:00:00"),  # a Friday
        ("2026-01-02 08:00:00", 3, "2026-01-02 18:00:00"),
        ("2026-01-02 17:59:59", 3, "2026-01-02 18:00:00"),
        ("2026-01-02 18:00:00", 1, "2026-01-05 08:00:00"),
        ("2026-01-03 12:00:00", 1, "2026-01-05 08:00:00"),
    ],
)
def test_an_entry_holds_from_its_start_until_its_end(moment, least, until):
    found = floor(autoscaling(DAY), at(moment))
    assert (found.min_replicas, found.until) == (least, at(until))


def test_an_entry_may_hold_over_midnight():
    night = {"start": "0 22 * * *", "end": "0 6 * * *", "minReplicas": 2}
    least = [
        floor(autoscaling(night), at(f"2026-01-02 {hour:02}:30:00")).min_replicas for hour in (21, 22, 23, 0, 5, 6)
    ]
    assert least == [1, 2, 2, 2, 2, 1]


def test_of_entries_that_overlap_the_largest_wins_and_the_next_turn_counts():
    noon = {"start": "0 11 * * *", "end": "0 13 * * *", "minReplicas": 5}
    found = floor(autoscaling(DAY, noon), at("2026-01-02 12:00:00"))
    assert (found.min_replicas, found.until) == (5, at("2026-01-02 13:00:00"))
    found = floor(autoscaling(DAY, noon), at("2026-01-02 13:00:00"))
    assert (found.min_replicas, found.until) == (3, at("2026-01-02 18:00:00"))


def test_an_entry_never_lowers_the_bound():
    assert floor(autoscaling(DAY, least=4), at("2026-01-02 12:00:00")).min_replicas == 4


def test_times_are_those_of_the_zone_in_summer_and_in_winter():
    berlin = {**DAY, "timezone": "Europe/Berlin"}
    assert floor(autoscaling(berlin), at("2026-01-02 06:00:00")).until == at("2026-01-02 07:00:00")
    assert floor(autoscaling(berlin), at("2026-07-02 05:00:00")).until == at("2026-07-02 06:00:00")


def test_a_start_in_the_hour_that_spring_skips_comes_after_it():
    """Clocks in Berlin go from 02:00 to 03:00 on 29 March 2026, which is 01:00 in UTC."""
    early = {"start": "30 2 * * *", "end": "0 5 * * *", "timezone": "Europe/Berlin", "minReplicas": 2}
    found = floor(autoscaling(early), at("2026-03-29 00:30:00"))
    assert (found.min_replicas, found.until) == (1, at("2026-03-29 01:00:00"))
    assert floor(autoscaling(early), at("2026-03-29 01:00:00")).min_replicas == 2


def test_without_entries_the_bound_holds_for_good():
    found = floor(autoscaling(), at("2026-01-02 12:00:00"))
    assert (found.min_replicas, found.until, found.problems) == (1, None, ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timezone": "Mars/Olympus"}, "schedule[0].timezone is 'Mars/Olympus'; use a name of the IANA database"),
        ({"timezone": "Europe"}, "schedule[0].timezone is 'Europe'; use a name of the IANA database"),
        ({"start": "61 8 * * *"}, "schedule[0].start is '61 8 * * *': Bad minute; use five cron fields"),
        ({"end": "0 8 * * MON-XYZ"}, "schedule[0].end is '0 8 * * MON-XYZ': Bad day-of-week; use five cron fields"),
        ({"start": "0 0 30 2 *"}, "schedule[0].start is '0 0 30 2 *': Bad day-of-month"),
        ({"start": "0 0 */32 * 1#5"}, "schedule[0].start is '0 0 */32 * 1#5', which never comes"),
    ],
)
def test_an_entry_that_can_not_be_used_is_named_and_the_others_hold(change, words):
    found = floor(autoscaling({**DAY, **change}, DAY), at("2026-01-02 12:00:00"))
    assert (found.min_replicas, found.until) == (3, at("2026-01-02 18:00:00"))
    assert len(found.problems) == 1
    assert words in found.problems[0]


def test_the_floor_moves_the_scaler_s_bound_and_back(world):
    """World's clock is at 2026-01-02 03:04:05 UTC; each step takes an hour."""
    world.edit(autoscaling={"maxReplicas": 9, "schedule": [{**DAY, "start": "0 4 * * *"}]})
    assert world.plan().requeue_after == LONGEST_SLEEP, "the clock may be set meanwhile"
    world.step()
    assert world.child("HorizontalPodAutoscaler")["spec"]["minReplicas"] == 1
    world.given(now=at("2026-01-02 03:59:50"))
    assert world.plan().requeue_after == 10.0
    result = world.given(now=at("2026-01-02 04:00:00")).step()
    assert [child["kind"] for child in result.apply] == ["HorizontalPodAutoscaler"]
    assert world.child("HorizontalPodAutoscaler")["spec"]["minReplicas"] == 3
    world.given(now=at("2026-01-02 18:00:00")).step()
    assert world.child("HorizontalPodAutoscaler")["spec"]["minReplicas"] == 1


def test_a_turn_that_is_told_is_a_turn(world):
    """Whoever looks again at `until` finds another window, or a later `until`: no service is planned in circles."""
    moment = at("2026-03-28 00:00:00")
    entries = autoscaling(
        {**DAY, "timezone": "America/New_York"},
        {"start": "*/20 * * * *", "end": "*/30 1-2 * * *", "timezone": "Europe/Berlin", "minReplicas": 2},
    )
    for _ in range(300):
        until = floor(entries, moment).until
        assert moment < until <= moment + timedelta(hours=1)
        moment = until
