"""Several heroes in one realm: each has its profile, tip, standing, floor, experience and idle quests of its own."""

import json
import time

import pytest
from fastapi.testclient import TestClient
from model_folders import write_model
from resident import accept_sums, fight, resident
from tavern_server import PAGE

from core import checkpoints, hero_loop
from core import ledger as ledgers
from core.checkpoints import Manifest, commit, pointed
from core.config import check_config, explain, load_config
from core.config_edit import mistakes, set_value
from core.errors import UserError
from core.floor import floor_of
from core.hero_loop import HeroLoop
from core.hero_profile import laid_over
from core.inbox import drop
from core.ledger import Ledger
from core.progress import standing_of
from core.roster import known_heroes
from core.standing import Standing
from core.status import realm_status
from core.training_daemon import TrainingDaemon
from monitoring.servers.tavern.app import create_app
from training.cli import main

pytestmark = pytest.mark.usefixtures("small_hero")

ADA = {"skill_priorities": {"REV": 1}, "idle_generation": {"level": 2}, "training_defaults": {"epochs": 2}}
BO = {"skill_priorities": {"SEQ": 1}, "seed": 11}


@pytest.fixture
def two(realm):
    """A realm of Ada, who is switched on, and Bo; nobody is born yet."""
    values = {
        "hero": {"name": "Ada"},
        "heroes": {"Ada": ADA, "Bo": BO},
        "idle_generation": {"pause_seconds": 0, "batch_size": 16},
    }
    realm.config.write_text(json.dumps(values))
    return realm


@pytest.fixture
def call(realm, capsys):
    """Runs a verb in the realm and gives exit code, output and errors."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["--root", str(realm.root), *words])
        return code, *capsys.readouterr()

    return run


def born(realm, hero: str, step: int, levels=(), base: str = "micro", quest=None, **facts) -> Manifest:
    standing = Standing({"REV": levels}).as_json() if levels else {}
    facts = Manifest(hero, "first", step, settings={"base_model": base}, standing=standing, quest=quest, **facts)
    return commit(realm, facts, lambda folder: (folder / "model.safetensors").write_bytes(b"") and None)


# One realm, two heroes


def housed(realm, ledger, enough) -> None:
    """The daemon runs until `enough`."""
    daemon = TrainingDaemon(realm, load_config(realm.config), ledger, time.monotonic, lambda: None)
    try:
        deadline = time.monotonic() + 60
        while not enough():
            daemon.loop(time.monotonic())
            assert time.monotonic() < deadline
    finally:
        daemon._small.close()
        daemon._large.close()


def waiting(realm) -> list[str]:
    return [path.name for path in realm.queued("low").glob("*.jsonl")]


def day(realm, ledger):
    """The hero that is switched on wakes up, has one idle quest written for it, and trains it."""
    worker = resident(realm, ledger, config=load_config(realm.config))
    housed(realm, ledger, lambda: waiting(realm))
    assert fight(worker) and not fight(worker), "what it shows last is that it rests"
    return worker


def facts_of(realm, ledger) -> dict:
    config = load_config(realm.config)
    hero, about = config.hero.name, realm_status(realm, config, ledger)["hero"]
    own = {name: about[name] for name in ("name", "global_step", "xp", "level", "mastered")}
    return own | {
        "pointers": [pointed(link) for link in (realm.tip, realm.current_model, realm.champion)],
        "standing": standing_of(realm, hero),
        "floor": floor_of(ledger, hero, "scribe"),
    }


def test_each_of_two_heroes_goes_on_where_it_was_with_what_is_its_own(two, ledger, call, monkeypatch):
    for rows in ("STARTER_ROWS", "FEWEST_ROWS", "MOST_ROWS"):
        monkeypatch.setattr(hero_loop, rows, 48)
    ada = day(two, ledger)
    ledger.change("battles", ledger.one("SELECT id FROM battles")["id"], xp=3.0)  # so little training earns none
    (quest,) = ada.queue.quests("recently_completed")
    assert quest.stem == "starter_REV_level2" and quest.settings.epochs == 2 and quest.settings.seed != 11
    housed(two, ledger, lambda: waiting(two))  # a quest of hers waits when she is switched off
    hers = facts_of(two, ledger)
    assert hers["global_step"] == ada.tip.step > 0 and hers["floor"] and set(ada.tip.baseline) == {"REV/2"}

    assert call("hero", "switch", "Bo")[0] == 0
    unborn = facts_of(two, ledger)
    assert hers["xp"] == 3.0
    assert (unborn["name"], unborn["global_step"], unborn["xp"], unborn["floor"]) == ("Bo", 0, 0, None)
    bo = day(two, ledger)
    his = facts_of(two, ledger)
    assert [quest.stem for quest in ada.queue.quests("failed")] == ["train_REV_level2_00001"]
    assert bo.queue.quests("recently_completed")[-1].stem == "starter_SEQ_level1"
    assert bo.queue.quests("recently_completed")[-1].settings.epochs == 1 and set(bo.tip.baseline) == {"SEQ/1"}
    assert his["floor"] != hers["floor"] and his["standing"] != hers["standing"] and pointed(two.tip) == bo.tip.id
    first = next(each for each in checkpoints.manifests(two, "Bo") if each.step == 0)
    assert first.files != next(each for each in checkpoints.manifests(two, "Ada") if each.step == 0).files, "no twins"

    assert call("hero", "switch", "Ada")[0] == 0
    assert facts_of(two, ledger) == hers, "before she wakes up"
    ada = day(two, ledger)
    quest = ada.queue.quests("recently_completed")[-1]
    assert quest.stem == "train_REV_level2_00002" and quest.settings.epochs == 2
    assert ada.tip.hero == "Ada" and ada.tip.parent == hers["pointers"][0] and ada.tip.step > hers["global_step"]
    assert {hero.name: hero.here.id for hero in known_heroes(two, load_config(two.config), ledger).values()} == {
        "Ada": ada.tip.id,
        "Bo": bo.tip.id,
    }


def test_rows_that_one_hero_has_trained_are_new_to_the_other_and_what_names_a_hero_is_for_that_one(two, ledger):
    set_value(two.config, "idle_generation.enabled", False)
    quest = accept_sums(two, ledger, "first")
    rows = next(two.queued("normal").glob("first-*.jsonl")).read_bytes()
    ledger.change("quests", quest, state="recently_completed")
    facts = {"school": "scribe", "state": "done", "start_step": 0, "total_steps": 1, "started": 0}
    ledger.add("battles", quest=quest, hero="Ada", **facts)

    def judged(**sidecars: dict) -> dict:
        """Why each was rejected, or its state."""
        for name, sidecar in sidecars.items():
            with drop(two, name, "low", sidecar) as file:
                file.write(rows)
        marks = ", ".join("?" * len(sidecars))
        said = f"SELECT stem, COALESCE(reason, state) AS said FROM quests WHERE stem IN ({marks}) AND state<>'arriving'"
        housed(two, ledger, lambda: len(ledger.all(said, sidecars)) == len(sidecars))
        return {row["stem"]: row["said"] for row in ledger.all(said, sidecars)}

    assert judged(again={}, his={"hero": "Bo"}) == {"again": "duplicate", "his": "another hero's"}
    set_value(two.config, "hero.name", "Bo")
    assert judged(new={}) == {"new": "queued"}


def test_the_idle_hero_waits_for_its_trainer_before_it_judges_its_own_level(two, ledger):
    checkpoints.set_tip(two, born(two, "Bo", 9).id)
    loop = HeroLoop(two, load_config(two.config), ledger)
    assert not loop.turn(1.0, True)
    checkpoints.set_tip(two, born(two, "Ada", 4, (1, 2, 3)).id)
    assert loop.turn(2.0, True)
    assert [path.stem for path in two.inbox.glob("low/*.jsonl")] == ["starter_REV_level4"]


def test_a_ledger_from_before_there_were_several_heroes_is_told_whose_its_rows_are(tmp_path, monkeypatch):
    place = next(
        n for n, script in enumerate(ledgers.MIGRATIONS) if "ALTER TABLE evaluations ADD COLUMN hero" in script
    )
    monkeypatch.setattr(ledgers, "MIGRATIONS", ledgers.MIGRATIONS[:place])
    old = Ledger(tmp_path / "realm.db")
    quests = {"priority": "low", "state": "failed", "created": 0, "updated": 0}
    fought, unfought = (old.add("quests", stem="train", origin="idle", **quests) for _ in range(2))
    users = old.add("quests", stem="mine", origin="user", **quests)
    battle = {"school": "scribe", "state": "done", "start_step": 0, "total_steps": 1}
    for hero, started in (("Ada", 10), ("Bo", 20)):
        old.add("battles", quest=fought, hero=hero, started=started, **battle)
    for created in (15, 25):
        old.add("evaluations", kind="validation", school="scribe", quest=fought, step=1, value=created, created=created)
    old.close()
    monkeypatch.undo()
    new = Ledger(tmp_path / "realm.db")
    assert (floor_of(new, "Ada", "scribe"), floor_of(new, "Bo", "scribe")) == (15, 25)
    told = {row["id"]: row["hero"] for row in new.all("SELECT id, hero FROM quests")}
    assert told == {fought: "Ada", unfought: "Bo", users: None}
    new.close()


# Profiles


def test_a_profile_is_laid_over_the_realms_values_field_by_field(two):
    set_value(two.config, "idle_generation.batch_size", 32)
    ada = load_config(two.config)
    assert ada.skill_priorities == {"REV": 1.0}, "all weights are hers"
    assert (ada.idle_generation.level, ada.idle_generation.batch_size, ada.idle_generation.pause_seconds) == (2, 32, 0)
    assert (ada.training_defaults.epochs, ada.training_defaults.optimizer_state, ada.seed) == (2, "carry", 7)
    set_value(two.config, "hero.name", "Bo")
    set_value(two.config, "heroes.Bo.base_model", "Qwen3-0.6B")
    bo = load_config(two.config)
    assert (bo.seed, bo.training_defaults.epochs, bo.idle_generation.level) == (11, 1, 1)
    assert (bo.hero.name, bo.hero.base_model) == ("Bo", "Qwen3-0.6B")
    set_value(two.config, "hero.name", "Cy")
    cy = load_config(two.config)
    assert cy.skill_priorities == {"BIN": 1.0, "REV": 1.0} and cy.hero.base_model is None and laid_over(cy) == cy


@pytest.mark.parametrize(
    ("heroes", "words"),
    [
        ({"A-da": {}}, "heroes.A-da: 'A-da' is no name that may stand there: "),
        ({"Ada": 3}, "heroes.Ada = 3: "),
        ({"Ada": {"skil_priorities": {}}}, "'heroes.Ada.skil_priorities'; did you mean 'heroes.Ada.skill_priorities'?"),
        ({"Ada": {"skill_priorities": {"BINN": 1}}}, "no skill is called 'BINN'; did you mean 'BIN'?"),
        ({"Ada": {"skill_priorities": {"BIN": -1}}}, "heroes.Ada.skill_priorities.BIN = -1: "),
        (
            {"Ada": {"seed": -1}},
            "heroes.Ada.seed = -1: Input should be greater than or equal to 0. Allowed: integer ≥ 0",
        ),
        ({"Ada": {"idle_generation": {"levl": 1}}}, "did you mean 'heroes.Ada.idle_generation.level'?"),
        ({"Ada": {"training_defaults": {"epochs": 0}}}, "heroes.Ada.training_defaults.epochs = 0: "),
    ],
)
def test_a_wrong_profile_is_named_with_its_place_on_the_command_line_and_beside_its_field(heroes, words):
    with pytest.raises(UserError) as problem:
        check_config({"heroes": heroes})
    assert words in str(problem.value)
    assert set(mistakes({"heroes": heroes})) == {"heroes"}, "the settings page has this field, and no other for it"


def test_a_profile_is_set_shown_and_explained_by_its_dotted_name(two, call):
    assert call("config", "set", "heroes.Ada.skill_priorities.BIN", "2")[0] == 0
    assert call("config", "set", "heroes.Cy.seed", "3")[0] == 0
    heroes = json.loads(two.config.read_text())["heroes"]
    assert heroes["Ada"]["skill_priorities"] == {"REV": 1, "BIN": 2} and heroes["Cy"] == {"seed": 3}
    code, _, err = call("config", "set", "heroes.Ada.sead", "3")
    assert (
        code == 1
        and "did you mean 'heroes.Ada.seed'?" in err
        and json.loads(two.config.read_text())["heroes"] == heroes
    )
    shown = call("config", "show")[1]
    assert 'skill_priorities = {"REV":1.0,"BIN":2.0}' in shown
    assert "Ada's own, the realm's is" in shown and "training_defaults.epochs = 2" in shown
    told = json.loads(call("config", "show", "--json")[1])
    assert told["heroes"]["Cy"] == {"seed": 3} and told["skill_priorities"] == {"REV": 1.0, "BIN": 2.0}
    assert explain("heroes.Ada.seed")["allowed"].startswith("integer")


def test_the_settings_page_shows_profiles_and_where_they_stand_in_place_of_the_realms_values(two):
    app = create_app(two, load_config(two.config))
    with TestClient(app, base_url="http://127.0.0.1:8888") as client:
        page = client.get("/settings", headers=PAGE)
    assert page.status_code == 200 and 'name="heroes"' in page.text and "SEQ" in page.text
    assert page.text.count("The hero's profile has <code>") == 3, "skill_priorities, level, epochs"
    assert "Now in effect" not in page.text


# Heroes


def test_heroes_are_listed_with_where_they_stand_before_the_models_that_others_can_start_from(two, call):
    ledger = Ledger(two.ledger)
    for manifest in (old := born(two, "Ada", 10, (1, 2)), left := born(two, "Ada", 90, (1, 2, 3)), born(two, "Zoe", 5)):
        checkpoints.record(ledger, manifest, "saved")
    born(two, "Ada", 120, branch="cooled down")
    ledger.change("checkpoints", left.id, rolled_back=1.0)
    ledger.close()
    write_model(two.models / "Tiny-0.1B")
    listed = json.loads(call("hero", "list", "--json")[1])
    assert [(one["kind"], one["name"], one["problem"]) for one in listed] == [
        ("base", "Tiny-0.1B", None),
        ("hero", "Ada", None),
        ("hero", "Bo", None),
        ("hero", "Zoe", None),
    ]
    ada, bo, zoe = listed[1:]
    assert ada["on"] and ada["checkpoint"] == old.id and ada["global_step"] == 10, "neither a branch nor what was left"
    assert ada["standing"] == "REV 2 levels mastered" and zoe["standing"] == "no level mastered yet"
    assert (bo["standing"], bo["checkpoint"], bo["on"]) == ("not born yet", None, False)
    text = call("hero", "list")[1]
    assert text.index("REV 2 levels mastered") < text.index("Tiny-0.1B")


def test_a_switch_takes_a_hero_up_where_it_stands_or_makes_a_new_one_of_a_model(two, call):
    ledger = Ledger(two.ledger)
    first, best, last = born(two, "Bo", 0), born(two, "Bo", 8, canaries={"REV/1": [9, 9]}), born(two, "Bo", 9)
    for manifest, state in ((first, "promoted"), (best, "promoted"), (last, "saved")):
        checkpoints.record(ledger, manifest, state)
    ledger.close()
    write_model(two.models / "Tiny-0.1B")
    code, out, _ = call("hero", "switch", "Bo")
    assert code == 0 and "The hero is Bo, at step 9" in out and "`hero switch Ada` brings it back" in out
    assert [pointed(link) for link in (two.tip, two.current_model, two.champion)] == [last.id, best.id, best.id]
    told = json.loads(call("hero", "switch", "Tiny-0.1B", "--name", "Eve", "--json")[1])
    assert told == {"base_model": "Tiny-0.1B", "name": "Eve", "before": "Bo"}
    assert load_config(two.config).hero.base_model == "Tiny-0.1B"
    assert call("hero", "switch", "Bo")[0] == 0 and load_config(two.config).hero.base_model is None
    assert call("hero", "switch", "Eve")[0] == 0 and load_config(two.config).hero.base_model == "Tiny-0.1B"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("Adda",),
            "'Adda' is neither a hero nor in models/; did you mean 'Ada'? Heroes: Ada, Bo. In models/: Tiny-0.1B",
        ),
        (("Tiny-0.1",), "did you mean 'Tiny-0.1B'?"),
        (("Bo", "--name", "Eve"), "'Bo' is neither a hero nor in models/"),
        (("Tiny-0.1B", "--name", "Ada"), "Ada was born already, from micro"),
        (("Tiny-0.1B", "--name", "E-ve"), "hero.name"),
    ],
)
def test_a_switch_that_cannot_be_says_why_and_changes_nothing(two, call, words, told):
    write_model(two.models / "Tiny-0.1B")
    checkpoints.set_tip(two, born(two, "Ada", 0).id)
    before = two.config.read_text()
    code, _, err = call("hero", "switch", *words)
    assert code == 1 and told in err and two.config.read_text() == before
