"""When checkpoints are begun: early enough to be on disk when their interval ends, and never more at risk than that."""

import random

import pytest

from core.save_pace import Interval, SavePace

FOREVER = 1e9


def live(pace: SavePace, interval: Interval, step_seconds, write_seconds, steps: int) -> dict:
    """Train as `core/between_steps.py` does, on a clock of our own: most steps and seconds at risk, and what was waited."""
    now, waited, begun, ends, steps_at_risk, seconds_at_risk = 0.0, 0.0, [], None, 0, 0.0
    for step in range(1, steps + 1):
        now += step_seconds(step)
        if ends is not None and now >= ends:
            pace.landed(now)
            ends = None
        steps_at_risk = max(steps_at_risk, step - pace.safe.step)
        seconds_at_risk = max(seconds_at_risk, now - pace.safe.time)
        while True:
            if ends is None and pace.due(step, now, interval):
                pace.begun(step, now)
                begun.append(step)
                ends = now + write_seconds(step)
            if not pace.full(step, now, interval):
                break
            waited += ends - now
            now = ends
            pace.landed(now)
            ends = None
    return {"begun": begun, "waited": waited, "steps": steps_at_risk, "seconds": seconds_at_risk, "time": now}


def test_at_a_steady_pace_only_the_first_checkpoint_is_waited_for():
    told = live(SavePace(0, 0.0), Interval(200, FOREVER), lambda _: 0.1, lambda _: 3.0, 2000)
    assert told["steps"] == 200 and told["waited"] <= 4.0 and len(told["begun"]) >= 10
    gaps = [after - before for before, after in zip(told["begun"], told["begun"][1:], strict=False)]
    assert min(gaps) >= 200 - 32 and told["begun"][0] == 199


def test_minutes_bound_what_is_at_risk_as_steps_do():
    told = live(SavePace(0, 0.0), Interval(10**9, 300.0), lambda _: 2.0, lambda _: 40.0, 2000)
    assert told["seconds"] <= 302.0 and told["waited"] <= 60.0
    assert 12 <= len(told["begun"]) <= 4000 / 250


@pytest.mark.parametrize("seed", range(20))
def test_whatever_steps_and_disk_do_no_more_than_an_interval_is_at_risk(seed):
    rng = random.Random(seed)
    interval = Interval(rng.choice((1, 2, 3, 10, 200)), FOREVER)
    told = live(
        SavePace(0, 0.0),
        interval,
        lambda _: rng.expovariate(20.0),
        lambda _: rng.expovariate(rng.choice((0.5, 50.0))),
        1000,
    )
    assert told["steps"] <= interval.steps
    assert len(told["begun"]) >= 1000 // interval.steps - 1


def test_a_rest_is_no_work_unless_something_is_still_on_its_way():
    pace = SavePace(100, 0.0)
    pace.rested(100, 5000.0)
    assert not pace.due(101, 5001.0, Interval(200, 300.0)) and not pace.full(101, 5001.0, Interval(200, 300.0))
    pace.begun(110, 5010.0)
    pace.rested(110, 5400.0)
    assert pace.full(111, 5401.0, Interval(200, 300.0)), "what was trained before the rest is on no disk yet"
    pace.landed(5402.0)
    assert not pace.full(111, 5402.0, Interval(200, 5500.0)) and pace.took == 392.0
