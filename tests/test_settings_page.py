"""The settings page: every field told, nothing written before its difference was shown, no secret out, no door widened."""

import html
import json
import re
import threading

import pytest
from tavern_realm import HOSTILE, fill, services
from tavern_server import OURS, PAGE, client_of

from core import config_edit
from core.config import Config, fields, load_config
from core.config_edit import UNSET, Overtaken, changed, save, seen, set_value
from core.ledger import Ledger
from core.memory_needs import GIB, Shape
from core.memory_plan import choose
from monitoring.servers.tavern import memory_view
from monitoring.servers.tavern.settings_text import settings, why_locked

SECRET = "https://hooks.example/T0K3N-abcdef"
QWEN = {"model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "vocab_size": 151936,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072, "tie_word_embeddings": True}  # fmt: skip


@pytest.fixture
def client(realm):
    with client_of(realm) as client:
        yield client


def write(realm, values):
    realm.config.write_text(json.dumps(values))
    return values


def text_of(answer):
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text)))


def letters(text):
    return re.sub(r"\W+", "", text)


def ours(page):
    """The page's form of settings."""
    return page[page.index('<form method="post" action="/settings"') :].partition("</form>")[0]


def form_of(client, path="/settings"):
    """What a browser would send back from the page as it is."""
    page, found = client.get(path, headers=PAGE).text, {}
    form = ours(page)
    for tag in re.findall(r"<input [^>]*>", form):
        name, value = re.search(r'name="([^"]*)"', tag), re.search(r'value="([^"]*)"', tag)
        found[html.unescape(name[1])] = html.unescape(value[1]) if value else ""
    for name, inner in re.findall(r'<select [^>]*name="([^"]*)"[^>]*>(.*?)</select>', form, re.DOTALL):
        chosen = re.search(r"<option selected>([^<]*)", inner)
        found[name] = html.unescape(chosen[1]) if chosen else ""
    for name, inner in re.findall(r'<textarea [^>]*name="([^"]*)"[^>]*>(.*?)</textarea>', form, re.DOTALL):
        found[name] = html.unescape(inner).removeprefix("\n")
    return found


def send(client, form, **typed):
    return client.post("/settings", data=form | typed, headers=OURS | PAGE)


# What is told


def test_every_field_is_on_the_page_with_its_words_and_only_those_that_may_be_changed_can_be_typed(client):
    page = client.get("/settings")
    form, told = form_of(client), text_of(page)
    for name in settings():
        assert page.text.count(f'<div class="field" id="{name}"') == 1, name
        assert (name in form) == (why_locked(name) is None), name
        assert letters(fields()[name].description)[:60] in letters(told), name
    locked = [name for name in settings() if why_locked(name)]
    assert {"tavern.host", "tavern.hosts", "tavern.require_token", "oracle.url", "backup.to", "alerts.webhook"} <= set(
        locked
    )
    assert "A page that could open its own door would be no door" in told


def test_what_is_in_effect_now_is_told_beside_what_the_file_says(realm):
    with client_of(realm, port=9999) as client:
        assert "Now in effect: 9999" in text_of(client.get("/settings"))  # as --port said
    ledger = fill(realm)
    write(realm, {"batch_size": 4, "save_minutes": 5})
    services(realm)
    with client_of(realm) as client:
        told = text_of(client.get("/settings"))
    assert told.count("Now in effect: 8 ") == 1 and "Now in effect: 5" not in told
    assert "The file is newer than daemon, trainer, tavern" in told
    ledger.close()


@pytest.mark.parametrize(
    "values", [{}, {"seed": 7, "memory": {"gib": 2}, "trainer": {"optim": "sgd"}, "save_minutes": 5}]
)
def test_a_form_sent_back_as_it_was_changes_nothing(client, realm, values):
    write(realm, values)
    before = realm.config.read_bytes()
    assert "Nothing differs" in send(client, form_of(client)).text
    assert send(client, form_of(client), step="save").status_code == 200 and realm.config.read_bytes() == before


# Changing


def test_a_change_is_shown_as_a_difference_and_then_written_as_config_set_would(client, realm, tmp_path):
    values = write(realm, {"tavern": {"port": 8888}, "batch_size": 8, "memory": {"weights": "bf16"}})
    typed = {
        "batch_size": "16",
        "trainer": '{"weight_decay":\r\n 0.1}',
        "hero.name": "MIA",
        "memory.weights": "",
        "packing": "false",
    }
    shown = send(client, form_of(client), **typed)
    told = text_of(shown)
    assert shown.status_code == 200 and json.loads(realm.config.read_text()) == values
    assert (
        "batch_size 8 16 for quests accepted after" in told
        and "hero.name default (DIO) MIA from the next start-all" in told
    )
    assert "memory.weights bf16 default (none)" in told and "Memory then" in told
    form = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', ours(shown.text)))
    saved = send(client, {html.unescape(name): html.unescape(value) for name, value in form.items()})
    assert saved.status_code == 303 and saved.headers["location"] == "/settings?saved=5"
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"tavern": {"port": 8888}}))
    for field, value in (
        ("batch_size", 16),
        ("trainer", {"weight_decay": 0.1}),
        ("hero.name", "MIA"),
        ("packing", False),
    ):
        set_value(other, field, value)
    assert load_config(realm.config) == load_config(other)
    assert list(json.loads(realm.config.read_text()))[:2] == [
        "tavern",
        "batch_size",
    ]  # what stood there stays in its place
    assert "Settings changed" in Ledger(realm.ledger).events_of("config_changed")[0]["text"]
    assert "Saved" in client.get(saved.headers["location"]).text


@pytest.mark.parametrize(
    ("name", "typed", "told"),
    [
        ("batch_size", "lots", "Input should be a valid integer. Allowed: integer ≥ 1 ≤ 4096."),
        ("batch_size", "0", "greater than or equal to 1"),
        ("save_minutes", "Infinity", "valid number"),
        ("seed", "9" * 5000, "Allowed: integer"),
        ("memory.weights", "int4", "'fp32' or 'bf16'"),
        ("trainer", '{"weight_dekay": 1}', "did you mean 'weight_decay'?"),
        ("trainer", '{"report_to": "wandb"}', "metrics go to state/metrics.db"),
        ("trainer", "[" * 5000, "valid dictionary"),
        ("skill_priorities", '{"BON": 1}', "did you mean 'BIN'?"),
        ("skill_priorities", '{"BIN": -1}', "BIN: Input should be greater"),
        ("disk.pause_percent", "10", "the marks must rise"),
        ("hero.name", "../../etc", "should match pattern"),
        ("hero.name", HOSTILE, "should match pattern"),
    ],
)
def test_what_is_wrong_is_named_beside_its_field_and_nothing_is_written(client, realm, name, typed, told):
    before = realm.config.exists()
    for step in ("review", "save"):
        answer = send(client, form_of(client), step=step, **{name: typed})
        field = answer.text[answer.text.index(f'id="{name}"') :].split('<div class="field', 1)[0]
        assert (
            answer.status_code == 422
            and told in html.unescape(field)
            and html.escape(typed, quote=False)[:60] in field.replace("&#34;", '"').replace("&#39;", "'")
        )
        assert realm.config.exists() == before and "<img src=x" not in answer.text


@pytest.mark.parametrize("name", [name for name in settings() if why_locked(name)])
def test_what_would_widen_the_door_is_refused_whoever_asks(client, realm, name):
    answer = send(client, form_of(client), step="save", **{name: '"0.0.0.0"'})
    assert answer.status_code == 403 and "in config.json only" in answer.text and not realm.config.exists()


def test_unknown_fields_and_sections_are_refused_with_the_nearest(client, realm):
    for name, told in (
        ("batch_sise", "did you mean 'batch_size'"),
        ("memory", "memory.gib"),
        (HOSTILE, "There is no field"),
    ):
        answer = client.post("/settings", data={"seen": "x", name: "1"}, headers=OURS | {"accept": "application/json"})
        assert answer.status_code == 422 and told in answer.json()["error"]["text"]
    assert client.post("/settings", data={f"x{place}": "1" for place in range(1001)}, headers=OURS).status_code == 400
    assert not realm.config.exists()


# Two at once


def test_who_comes_second_sees_both_and_loses_nothing(client, realm):
    write(realm, {"batch_size": 8})
    mine = form_of(client)
    set_value(realm.config, "batch_size", 32)
    set_value(realm.config, "seed", 1)
    for step in ("review", "save"):
        answer = send(client, mine, step=step, batch_size="16", max_length="2048")
        told = text_of(answer)
        assert answer.status_code == 409 and "batch_size 32 16" in told and "max_length default (1024) 2048" in told
        assert "seed" not in told  # which I have not touched
    again = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', ours(answer.text)))
    assert send(client, again, step="save").status_code == 303
    assert json.loads(realm.config.read_text()) == {"batch_size": 16, "seed": 1, "max_length": 2048}


def test_no_change_of_many_writers_is_lost(realm):
    names = [
        "seed",
        "batch_size",
        "eval_steps",
        "save_steps",
        "validation_rows",
        "retention.keep_last",
        "tavern.port",
        "backup.keep",
    ]

    def writer(name):
        for value in range(40, 46):
            while True:
                try:
                    save(realm.config, {name: value}, seen(realm.config)) if value % 2 else set_value(
                        realm.config, name, value
                    )
                    break
                except Overtaken:
                    pass

    threads = [threading.Thread(target=writer, args=(name,)) for name in names]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    config = load_config(realm.config).model_dump()
    assert {name: config_edit_value(config, name) for name in names} == dict.fromkeys(names, 45)


def config_edit_value(values, name):
    for part in name.split("."):
        values = values[part]
    return values


def test_taking_a_field_out_takes_its_empty_section_with_it():
    assert changed({"memory": {"gib": 2}, "seed": 1}, {"memory.gib": UNSET}) == {"seed": 1}
    assert changed({"memory": {"gib": 2, "weights": "bf16"}}, {"memory.gib": UNSET}) == {"memory": {"weights": "bf16"}}
    assert changed({}, {"memory.gib": UNSET, "disk.reserve_bytes": 1}) == {"disk": {"reserve_bytes": 1}}
    assert config_edit.mistakes({"sed": 1}) == {"sed": "There is no such field; did you mean 'seed'?"}


# What is hostile or secret


def test_secrets_are_on_no_page_whatever_is_done(client, realm):
    values = {"alerts": {"webhook": SECRET}, "backup": {"to": "sftp://me:p@/pa55word@box/dir?k=v"}, "batch_size": 8}
    for wrong in (
        values,
        values | {"alerts": {"webhook": SECRET.replace("https", "gopher")}},
        values | {"alerts": {"wbhook": SECRET}},
    ):
        write(realm, wrong)
        stale, form = form_of(client) | {"seen": "0"}, form_of(client)
        pages = [client.get("/settings"), client.get("/vault"), send(client, form, batch_size="9"), send(client, stale, batch_size="9"),
                 send(client, form, batch_size="x"), send(client, form, step="save", **{"alerts.webhook": SECRET})]  # fmt: skip
        for page in pages:
            assert "T0K3N" not in page.text and "pa55word" not in page.text and "k=v" not in page.text, page.text
    write(realm, values)
    page = text_of(client.get("/settings"))
    assert "alerts.webhook set, and not shown" in page and "sftp://box/dir" in page
    assert send(client, form_of(client), step="save", batch_size="9").status_code == 303
    assert json.loads(realm.config.read_text()) == values | {"batch_size": 9}  # what is not shown stays as it is


def test_hostile_values_in_the_file_are_inert_and_told(client, realm):
    write(realm, {HOSTILE: 1, "hero": {"base_model": HOSTILE}, "trainer": {HOSTILE: HOSTILE}, "seed": HOSTILE})
    for page in (client.get("/settings"), send(client, form_of(client), batch_size="9")):
        assert "<img src=x" not in page.text and "&lt;img src=x" in page.text and "Mend it in the file" in page.text
        assert "Input should be a valid integer" in page.text
    write(realm, {"hero": {"base_model": HOSTILE}})
    assert "is not in models/" in text_of(client.get("/settings")) and "<img src=x" not in client.get("/settings").text


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b'"x"', b""])
def test_a_file_that_is_no_json_object_is_told_and_left_alone(client, realm, content):
    realm.config.write_bytes(content)
    page = client.get("/settings")
    assert page.status_code == 200 and "Mend it in the file" in page.text and "disabled" in page.text
    assert (
        client.post(
            "/settings", data={"seen": seen(realm.config), "seed": "1", "step": "save"}, headers=OURS
        ).status_code
        == 409
    )
    assert realm.config.read_bytes() == content


# Memory


def test_the_memory_plan_is_that_of_the_typed_settings(client, realm):
    folder = realm.models / "Big"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN))
    (folder / "model.safetensors").write_bytes(b"")
    config = Config()
    told = memory_view.memory(realm, config)
    assert told["problem"]  # nobody can train from a folder without weights, and the page says why
    assert told["problem"] in text_of(client.get("/settings"))
    ledger = fill(realm)
    tip = realm.vault / realm.tip.readlink().name
    (tip / "config.json").write_text(json.dumps(QWEN))
    machine = memory_view._machine(config)
    now, then = client.get("/settings"), send(client, form_of(client), **{"max_length": "8192", "memory.gib": "3"})
    before, after = text_of(then).split("Memory now")[1].split("Memory then")
    found = choose(config, Shape.read(tip), machine)
    assert f"{found.total_bytes / GIB:.2f} GiB" in before and f"{found.total_bytes / GIB:.2f} GiB" in text_of(now)
    assert "It does not fit" in after and "What would help" in after and "rows of up to 8,192 tokens" in after
    bar = memory_view.memory(realm, config)["plan"]
    assert sum(part["bytes"] for part in bar["parts"]) == bar["total"] == found.total_bytes
    assert abs(sum(part["width"] for part in bar["bar"]) - 1000) < 2
    ledger.close()
