"""Heartbeats: what a phase grants follows from the steps of late; a reader is told by change, whatever the file holds."""

import os

from core.heartbeat import SILENCE, Heartbeat, read_beat


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_step_may_take_a_minute_or_five_times_the_longest_of_late_whichever_is_more(tmp_path):
    clock, path = Clock(), tmp_path / "trainer"
    heart = Heartbeat(path, clock)
    heart.enter("warm-up", 100)
    clock.now += 500  # the first step compiles: no measure of others
    heart.enter("step", 100)
    assert read_beat(path).silence == SILENCE["warm-up"], "a large hero's second step may take minutes, too"
    clock.now += 2
    for number in range(101, 201):
        heart.enter("step", number)
        clock.now += 2
    heart.enter("step", 201)
    assert (read_beat(path).phase, read_beat(path).number, read_beat(path).silence) == ("step", 201, 60.0)
    for number in range(202, 206):
        clock.now += 40
        heart.enter("step", number)
    assert read_beat(path).silence == 200.0
    heart.enter("evaluation", 206)
    assert read_beat(path).silence == 800.0
    heart.enter("checkpoint", seconds=2000.0)
    assert read_beat(path).silence == 2000.0 and read_beat(path).number == 206
    heart.enter("checkpoint")
    assert read_beat(path).silence == SILENCE["checkpoint"]


def test_every_beat_is_a_change_even_within_one_tick_of_the_clock(tmp_path):
    path = tmp_path / "daemon"
    assert read_beat(path) is None
    heart, seen = Heartbeat(path), set()
    for _ in range(50):
        heart.beat()
        os.utime(path, (0, 0))
        seen.add(read_beat(path))
    assert len(seen) == 50 and {beat.silence for beat in seen} == {None}


def test_a_file_that_says_nothing_or_nonsense_is_a_beat_without_a_limit(tmp_path):
    path = tmp_path / "trainer"
    for text in ("", "step", "step x 60 1", "sleeping 3 60 1", "\xff\xfe"):
        path.write_text(text)
        assert (read_beat(path).phase, read_beat(path).silence) == ("", None)


def test_on_a_full_disk_a_beat_is_still_one(tmp_path):
    path = tmp_path / "trainer"
    path.symlink_to("/dev/full")
    before = os.stat(path).st_mtime_ns
    Heartbeat(path).beat()
    assert os.stat(path).st_mtime_ns != before
