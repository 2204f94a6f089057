"""A quest is in exactly one folder, its companions with it, whatever happens and whenever its mover is killed."""

import itertools
import os
import sys
import threading
import traceback

import pytest

from core.errors import UserError
from core.ledger import Ledger
from core.paths import PRIORITIES, QUEUE_STATES
from core.quest import ANSWERS, COMPANIONS, Quest, parse_name, quest_name
from core.training_queue import MAX_FAILURES, TrainingQueue

CARD = {"sha256": "ab", "bytes": 9, "rows": 1, "bad_rows": 1, "form": "messages", "school": "scribe", "skill": None,
        "settings": {}, "origin": "user"}  # fmt: skip
DATA = b'{"a": 1}\n'


@pytest.fixture
def queue(realm, ledger):
    return TrainingQueue(realm, ledger)


def claimed(queue, stem="quest", data=DATA, bad=True):
    """A file in .claim as the intake leaves it, with set-aside rows beside it."""
    quest = queue.ledger.add(
        "quests", stem=stem, origin="user", state="arriving", priority="normal", created=1.0, updated=1.0
    )
    path = queue.paths.claims / f"{quest_name(stem, quest)}.jsonl"
    path.write_bytes(data)
    if bad:
        path.with_suffix(".bad.jsonl").write_bytes(b"{\n")
    return path


def accepted(queue, stem="quest", priority="normal", **kwargs) -> Quest:
    quest = queue.accept(claimed(queue, stem, **kwargs), priority, CARD, {"rows": 1})
    quest.companion(ANSWERS).touch()
    return quest


def rejected(queue, stem="quest", reason="no"):
    return queue.reject(claimed(queue, stem), {"reason": reason})


def where(queue, quest) -> list[str]:
    """The folders that hold the quest's data file."""
    return [state for state in QUEUE_STATES if (queue.paths.queued(state) / f"{quest.name}.jsonl").exists()]


def ledger_state(queue, quest) -> str:
    return queue.ledger.one("SELECT state FROM quests WHERE id=?", (quest.id,))["state"]


# Order


def test_quests_are_claimed_by_priority_then_by_fewest_failures_then_by_age(queue):
    names = {}
    for stem, priority in (
        ("l1", "low"),
        ("n1", "normal"),
        ("n2", "normal"),
        ("n3", "normal"),
        ("h1", "high"),
        ("h2", "high"),
    ):
        names[stem] = accepted(queue, stem, priority)
    queue.ledger.change("quests", names["n1"].id, failures=2)
    queue.ledger.change("quests", names["n2"].id, failures=1)
    order = [quest.stem for quest in queue.waiting()]
    assert order == ["h1", "h2", "n3", "n2", "n1", "l1"]
    assert [queue.claim().stem for _ in order] == order
    assert queue.claim() is None


def test_ids_are_compared_as_numbers(queue):
    for quest in (999_999, 1_000_000, 5):
        (queue.paths.queued("normal") / f"{quest_name('x', quest)}.jsonl").write_bytes(DATA)
    assert [quest.id for quest in queue.quests("normal")] == [5, 999_999, 1_000_000]


def test_many_who_claim_at_once_get_each_quest_once(queue, realm):
    for number in range(24):
        accepted(queue, f"quest{number}")
    got, start = [], threading.Barrier(4)

    def claim_all():
        own = TrainingQueue(realm, queue.ledger)
        start.wait()
        while quest := own.claim():
            got.append(quest.id)
        queue.ledger.close()

    threads = [threading.Thread(target=claim_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 25))
    assert len(list(realm.queued("processing").glob("*.quest.json"))) == 24


def test_files_that_are_no_quests_are_never_claimed(queue):
    folder = queue.paths.queued("normal")
    for name in ("notes.txt", ".hidden-q000001.jsonl", "x-q000001.bad.jsonl", "x-q000001.quest.json", "no-id.jsonl"):
        (folder / name).write_bytes(b"x")
    (folder / "x-q000002.jsonl").mkdir()
    assert queue.waiting() == []


# Names


@pytest.mark.parametrize(
    "stem", ["a", "a.b", "a-q000001", "ünï cödé", "-q000001", "a\nb", "x.bad", "x.quest", "q" * 200]
)
def test_every_stem_comes_back_from_its_name_in_the_queue(queue, stem):
    quest = accepted(queue, stem)
    assert parse_name(quest.path) == (stem, quest.id)
    assert [(found.stem, found.id) for found in queue.quests("normal")] == [(stem, quest.id)]
    assert queue.find(quest.id) == quest


def test_two_quests_of_one_name_do_not_meet(queue):
    first, second = accepted(queue, "same"), accepted(queue, "same", data=b"other")
    assert queue.finish(queue.claim()).id == first.id
    assert queue.finish(queue.claim()).id == second.id
    assert [quest.path.read_bytes() for quest in queue.quests("recently_completed")] == [DATA, b"other"]


def test_a_rejected_file_keeps_its_own_name_where_that_is_free(queue):
    first, second = rejected(queue, "same"), rejected(queue, "same")
    assert first.name == "same.jsonl"
    assert second.name.startswith("same-q") and parse_name(second) == ("same", 2)
    for number, path in enumerate((first, second), 1):
        found = queue.find(number)
        assert (found.path, found.report["quest"], found.report["reason"]) == (path, number, "no")


def test_a_rejected_file_does_not_take_the_companions_of_another(queue):
    (queue.paths.queued("rejected") / "same.bad.jsonl").write_bytes(b"somebody's")
    assert rejected(queue, "same").name != "same.jsonl"
    assert (queue.paths.queued("rejected") / "same.bad.jsonl").read_bytes() == b"somebody's"


def test_a_rejected_copy_of_a_quest_file_is_not_taken_for_that_quest(queue):
    trained = accepted(queue, "mine")
    trained = queue.finish(queue.claim())
    rejected(queue, trained.name, "duplicate")  # its user copied it from the queue back into the inbox
    queue.reconcile()
    assert ledger_state(queue, trained) == "recently_completed"
    assert queue.find(trained.id) == trained
    assert trained.report == {"rows": 1} and trained.card == CARD


def test_rejected_names_do_not_look_like_set_aside_rows(queue):
    path = rejected(queue, "x.bad")
    assert not path.name.endswith(".bad.jsonl")
    assert queue.counts()["rejected"] == 1


def test_what_cannot_be_found_is_told_apart(queue):
    with pytest.raises(UserError, match="there is no quest 7"):
        queue.find(7)
    quest = accepted(queue)
    quest.path.unlink()
    with pytest.raises(UserError, match=r"quest 1 \(quest\) is in no folder .* last queued"):
        queue.find(quest.id)


# Moves


def test_companions_follow_the_data_through_every_folder(queue):
    quest = accepted(queue)
    journey = [quest]
    journey.append(queue.claim())
    journey.append(queue.put_back(journey[-1], "low"))
    journey.append(queue.claim())
    journey.append(queue.blame(journey[-1], "it broke"))
    journey.append(queue.claim())
    journey.append(queue.finish(journey[-1]))
    journey.append(queue.put_back(journey[-1]))
    journey.append(queue.give_up(journey[-1], "cancelled"))
    assert [each.state for each in journey] == ["normal", "processing", "low", "processing", "low", "processing",
                                                "recently_completed", "low", "failed"]  # fmt: skip
    last = journey[-1]
    assert sorted(os.listdir(last.path.parent)) == sorted(
        [last.path.name, *(last.name + suffix for suffix in COMPANIONS)]
    )
    assert (last.path.read_bytes(), last.companion(".bad.jsonl").read_bytes(), last.card) == (DATA, b"{\n", CARD)
    assert last.report == {"rows": 1, "quest": 1, "reason": "cancelled"}
    assert sum(queue.counts().values()) == 1 and queue.counts()["failed"] == 1


def test_a_quest_put_back_waits_at_its_own_priority(queue):
    accepted(queue, "x", "high")
    assert queue.put_back(queue.claim()).state == "high"


def test_a_quest_that_fails_three_times_is_given_up_with_its_dossier(queue):
    accepted(queue, "poison"), accepted(queue, "good")
    for attempt in range(MAX_FAILURES):
        quest = next(quest for quest in iter(queue.claim, None) if quest.stem == "poison")
        moved = queue.blame(quest, f"reason {attempt}")
        for other in queue.quests("processing"):
            queue.put_back(other)
        assert moved.state == ("failed" if attempt == MAX_FAILURES - 1 else "normal")
        assert queue.waiting()[0].stem == "good"
    assert moved.report["reason"] == "reason 2" and moved.report["rows"] == 1
    row = queue.ledger.one("SELECT state, reason, failures FROM quests WHERE id=?", (moved.id,))
    assert row == {"state": "failed", "reason": "reason 2", "failures": 3}


def test_a_quest_whose_file_was_taken_away_is_claimed_by_nobody(queue):
    accepted(queue, "a").path.unlink()
    assert queue.claim() is None


# Kills

MOVES = {
    "claim": (lambda queue: accepted(queue), lambda queue: queue.claim(), "processing"),
    "finish": (
        lambda queue: accepted(queue) and queue.claim(),
        lambda queue: queue.finish(queue.find(1)),
        "recently_completed",
    ),
    "put_back": (
        lambda queue: accepted(queue) and queue.claim(),
        lambda queue: queue.put_back(queue.find(1)),
        "normal",
    ),
    "skip": (
        lambda queue: accepted(queue) and queue.claim(),
        lambda queue: queue.put_back(queue.find(1), "low"),
        "low",
    ),
    "blame": (lambda queue: accepted(queue) and queue.claim(), lambda queue: queue.blame(queue.find(1), "x"), "normal"),
    "place": (lambda queue: accepted(queue), lambda queue: queue.place(queue.find(1), "high", 0), "high"),
    "give_up": (lambda queue: accepted(queue), lambda queue: queue.give_up(queue.find(1), "cancelled"), "failed"),
}


def came_to_its_end(work, touches: int) -> bool:
    """Run `work` in a child process that dies at its touch number `touches` of the file system; whether it got to the end."""
    child = os.fork()
    if child == 0:
        try:
            left = itertools.count(touches, -1)

            def watch(event, _):
                if event in ("os.rename", "os.remove", "open") and next(left) == 0:
                    os._exit(9)

            sys.addaudithook(watch)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 0


def killed_everywhere(realm, ledger, prepare, work, check):
    """Do `prepare`, kill `work` at its first, second, … touch of the file system, and `check` each time, on fresh realms."""
    for touches in itertools.count():
        paths = type(realm)(realm.root / f"kill{touches}")
        paths.make()
        own = Ledger(paths.ledger)
        prepare(TrainingQueue(paths, own))
        own.close()
        ended = came_to_its_end(lambda paths=paths: work(TrainingQueue(paths, Ledger(paths.ledger))), touches)
        own = Ledger(paths.ledger)
        check(TrainingQueue(paths, own))
        own.close()
        if ended:
            return touches


def in_one_place(queue, folders):
    """The one quest, its data whole and in one of `folders`, companions beside it, the ledger of the same opinion."""
    found = [quest for state in QUEUE_STATES for quest in queue.quests(state)]
    assert len(found) == 1 and found[0].state in folders
    quest = found[0]
    assert quest.path.read_bytes() == DATA and quest.card == CARD and quest.report["rows"] == 1
    assert quest.companion(".bad.jsonl").read_bytes() == b"{\n"
    beside = sum(
        len([name for name in os.listdir(queue.paths.queued(state)) if not name.startswith(".")])
        for state in QUEUE_STATES
    )
    assert beside == 1 + len(COMPANIONS) - (not quest.companion(ANSWERS).exists())
    assert ledger_state(queue, quest) == ("queued" if quest.state in PRIORITIES else quest.state)


@pytest.mark.parametrize("name", MOVES)
def test_a_move_killed_anywhere_is_mended_by_reconcile(realm, ledger, name):
    prepare, work, target = MOVES[name]

    def check(queue):
        queue.reconcile()
        in_one_place(queue, {"normal", "processing", target})

    assert killed_everywhere(realm, ledger, prepare, work, check) >= 4


def test_an_acceptance_killed_anywhere_leaves_the_file_in_claim_or_in_the_queue(realm, ledger):
    def check(queue):
        queue.reconcile()
        left = [path for path in queue.paths.claims.iterdir() if parse_name(path)]
        if left:
            assert left[0].read_bytes() == DATA and not queue.waiting()
            queue.accept(left[0], "normal", CARD, {"rows": 1})
        in_one_place(queue, {"normal"})

    assert (
        killed_everywhere(
            realm, ledger, claimed, lambda queue: queue.accept(claim_of(queue), "normal", CARD, {"rows": 1}), check
        )
        > 6
    )


def test_a_rejection_killed_anywhere_leaves_the_file_in_claim_or_rejected(realm, ledger):
    def check(queue):
        queue.reconcile()
        left = [path for path in queue.paths.claims.iterdir() if parse_name(path)]
        if left:
            queue.reject(left[0], {"reason": "no"})
        found = queue.find(1)
        assert found.path.read_bytes() == DATA and found.report["reason"] == "no" and queue.counts()["rejected"] == 1

    assert (
        killed_everywhere(realm, ledger, claimed, lambda queue: queue.reject(claim_of(queue), {"reason": "no"}), check)
        > 4
    )


def claim_of(queue):
    return next(path for path in queue.paths.claims.iterdir() if parse_name(path))


# Reconciling


def test_the_folder_wins_over_the_ledger(queue):
    quest = accepted(queue)
    os.rename(quest.path, queue.paths.queued("high") / quest.path.name)  # somebody moved it by hand
    queue.reconcile()
    assert queue.ledger.one("SELECT state, priority FROM quests") == {"state": "queued", "priority": "high"}
    assert queue.find(quest.id).card == CARD


def test_a_ledger_that_was_lost_is_filled_from_the_folders(queue, realm):
    quest = accepted(queue, "kept")
    queue.ledger.connection.execute("DELETE FROM quests")
    queue.reconcile()
    row = queue.ledger.one("SELECT * FROM quests")
    assert (row["id"], row["stem"], row["state"], row["sha256"], row["rows"]) == (quest.id, "kept", "queued", "ab", 1)
    assert claimed(queue).name.endswith("-q000002.jsonl"), "no id is given twice"


def test_reconciling_what_is_in_order_changes_nothing(queue):
    accepted(queue), rejected(queue, "r")
    before = queue.ledger.all("SELECT * FROM quests ORDER BY id")
    queue.reconcile()
    assert queue.ledger.all("SELECT * FROM quests ORDER BY id") == before
