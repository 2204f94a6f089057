"""The arena's page: agents are made, two are called into the ring, whoever has no browser reads the same; and what is refused."""

import re

import pytest
from processes import until
from tavern_realm import empty_realm, fill
from tavern_server import OURS, PAGE, client_of

from core.arena import play
from core.arena.battle import Terms, battle
from core.arena.league import Arena
from core.arena.shape import Shape

TINY = Shape(8, 1, 1)


@pytest.fixture
def arena(tmp_path) -> Arena:
    paths = empty_realm(tmp_path / "realm")
    fill(paths).close()
    return Arena(paths)


@pytest.fixture
def ask(arena):
    """The Tavern's client, whose processes end with the test."""
    with client_of(arena.paths) as client:
        yield client


def page_of(client) -> str:
    answer = client.get("/arena", headers=PAGE)
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))


def send(client, path: str, **fields):
    return client.post(path, data=fields, headers=OURS | PAGE)


def test_a_visitor_makes_two_agents_and_sees_them_fight(arena, ask):
    assert "Nobody is here yet" in page_of(ask) and "Two agents are needed" in page_of(ask)
    for name, width in (("Ada", 8), ("Bee", 16)):
        made = send(ask, "/arena/agents", name=name, n_embd=width, n_layer=1, n_head=2)
        assert (made.status_code, made.headers["location"]) == (303, "/arena")
    assert "Nobody has fought yet" in page_of(ask)
    before = ask.get("/parts/challenge").text
    assert "<option selected>Ada</option>" in before and "<option selected>Bee</option>" in before
    begun = send(ask, "/arena/battle", one="Ada", other="Bee", steps=5)
    assert (begun.status_code, begun.headers["location"]) == (303, "/arena#ring")
    assert send(ask, "/arena/battle", one="Ada", other="Bee", steps=5).status_code == 409
    assert "They enter the ring" in page_of(ask) or arena.told("battle")
    until(lambda: arena.told("battle").get("phase") == "done")
    told = page_of(ask)
    result = arena.told("battle")["result"]
    assert (f"{result['winner']} wins" if result["winner"] else "A draw") in told
    for side in result["agents"].values():
        assert side["names"][0] in told and f"{side['elo']:,.0f}" in told
    assert "Fought of late" in told and "5 steps on names" in told and "crowned" in told
    assert 'class="line second"' in ask.get("/parts/ring").text


def test_parts_grow_old_when_the_arena_changes(arena, ask):
    def versions():
        from monitoring.servers.tavern.views import now

        return {key: now(ask.app.state.realm)["versions"][key] for key in ("ring", "league")}

    before = versions()
    play.create(arena, "Ada", TINY, None, 0)
    after = versions()
    assert after["league"] != before["league"] and after["ring"] == before["ring"]
    play.create(arena, "Bee", TINY, None, 0)
    battle(arena, "Ada", "Bee", Terms(2, names=2))
    assert versions()["ring"] != after["ring"]


def test_a_battle_of_the_command_line_is_seen_while_it_is_fought_and_may_be_broken_off(arena, ask):
    for name in ("Ada", "Bee"):
        play.create(arena, name, TINY, None, 0)
    seen = []

    def hear(facts):
        if facts["phase"] == "training" and facts["step"]:
            seen.append(page_of(ask))
            assert send(ask, "/arena/rest").status_code == 409
            assert send(ask, "/arena/agents", name="Cea", n_embd=8, n_layer=1, n_head=1).status_code == 409

    battle(arena, "Ada", "Bee", Terms(300, names=2), caller=play.Caller(hear))
    assert seen and "of 300" in seen[0] and "Still learning" in seen[0] and "The arena is in use" in seen[0]
    send(ask, "/arena/battle", one="Ada", other="Bee", steps=20_000)
    until(lambda: arena.told("battle").get("live") and arena.told("battle")["step"])
    assert "Break it off" in page_of(ask)
    assert send(ask, "/arena/stop").status_code == 303
    until(lambda: not ask.app.state.realm.battles.running and "broken off" in page_of(ask))
    assert arena.read().fought == 1
    play.train(arena, "Ada", 300, caller=play.Caller(lambda _: seen.append(page_of(ask))))
    assert "Ada is being trained from the command line" in seen[-1] and "broken off" in page_of(ask)


def test_a_visitor_rests(arena, ask):
    with arena.alone("test") as book:
        book.energy = 3.0
        arena.commit(book)
    assert " 3 of 1,000" in page_of(ask)
    assert send(ask, "/arena/rest").status_code == 303
    assert "1,000 of 1,000" in page_of(ask) and "rested 1 times" in page_of(ask)


def test_what_cannot_be_is_refused_with_a_reason_and_begins_nothing(arena, ask):
    for name in ("Ada", "Bee"):
        play.create(arena, name, TINY, None, 0)
    for path, fields, status, told in (
        ("/arena/battle", {"one": "Ada", "other": "Ada", "steps": 5}, 400, "cannot fight itself"),
        ("/arena/battle", {"one": "Ada", "other": "../../etc", "steps": 5}, 400, "there is no agent"),
        ("/arena/battle", {"one": "Ada", "other": "--data", "steps": 5}, 400, "there is no agent"),
        ("/arena/battle", {"one": "Ada", "other": "Bee", "steps": 0}, 422, "steps"),
        ("/arena/battle", {}, 422, "one"),
        ("/arena/agents", {"name": "../x", "n_embd": 8, "n_layer": 1, "n_head": 1}, 400, "take letters"),
        ("/arena/agents", {"name": "Ada", "n_embd": 8, "n_layer": 1, "n_head": 1}, 400, "already"),
        ("/arena/agents", {"name": "Odd", "n_embd": 8, "n_layer": 1, "n_head": 3}, 400, "take n_embd"),
    ):
        answer = send(ask, path, **fields)
        assert answer.status_code == status and told in answer.text, (path, fields, answer.text)
    assert not ask.app.state.realm.battles.running and set(arena.read().agents) == {"Ada", "Bee"}


def test_a_battle_that_cannot_be_paid_is_told_on_the_page(arena, ask):
    play.create(arena, "Giant", Shape(256, 8, 8), None, 0)
    play.create(arena, "Ada", TINY, None, 0)
    send(ask, "/arena/battle", one="Giant", other="Ada", steps=90_000)
    until(lambda: ask.app.state.realm.battles.problem)
    assert "needs more energy than there is" in page_of(ask)


def test_a_book_that_cannot_be_read_is_told_on_the_page(arena, ask):
    play.create(arena, "Ada", TINY, None, 0)
    arena.paths.arena_book.write_text("{")
    assert "cannot be read" in page_of(ask)
