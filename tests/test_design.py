"""What the Tavern's pages have in common: colours by name, two tongues, two switches, the pages of skills and their like."""

import json
import re
from html.parser import HTMLParser

import pytest
from tavern_realm import empty_realm, fill
from tavern_server import OURS, PAGE, client_of

from core import lore
from core.schools import SCHOOLS
from core.skills import skill
from monitoring.servers.tavern.pages import PAGES
from monitoring.servers.tavern.security import STATIC
from monitoring.servers.tavern.tongues import plain_template

PLAIN = {"cookie": "realm_tongue=plain"}
LORE = re.compile(
    rf"(?<![\w/.-])({'|'.join(word.lower() for word in lore.PLAIN)})(?:s|es)?(?![\w/]|\.\w)", re.IGNORECASE
)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    paths = empty_realm(tmp_path_factory.mktemp("full"))
    fill(paths).close()
    return paths


@pytest.fixture
def empty(tmp_path):
    return empty_realm(tmp_path)


class Said(HTMLParser):
    """Every text that a page shows or has read out, but for what is typed as it stands, and what ledger and reports tell."""

    def __init__(self, page: str):
        super().__init__()
        self.texts, self.silent = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        spoken = dict(attributes)
        self.texts += [spoken[name] for name in ("aria-label", "title", "placeholder", "alt") if spoken.get(name)]
        told = "data-log" in spoken or spoken.get("class") in ("reason", "name", "typed")
        if tag in ("code", "pre", "blockquote") or told:
            self.silent.append(tag)

    def handle_endtag(self, tag):
        if self.silent and self.silent[-1] == tag:
            self.silent.pop()

    def handle_data(self, data):
        self.texts += [] if self.silent else [data.strip()]


@pytest.mark.parametrize("realm", ["empty", "full"])
@pytest.mark.parametrize("path", [page.path for page in PAGES])
def test_no_page_speaks_the_realms_tongue_to_whom_wants_plain_words(path, realm, request):
    paths = request.getfixturevalue(realm)
    with client_of(paths) as client:
        said = Said(client.get(path, headers=PAGE | PLAIN).text).texts
    schools = {card.title for card in SCHOOLS.values()}  # names of their own
    assert [text for text in said if LORE.search(text) and text not in schools] == []


def test_the_dictionary_knows_plurals_beginnings_and_what_is_typed():
    assert lore.plain("Quests wait. Heroes fight battles.") == "Training files wait. Models fight training runs."
    assert lore.plain("kept in the Vault") == "kept in the checkpoint store"
    assert lore.plain(" Vault ") == " Checkpoints "
    assert lore.plain("quest_failed, queue/quest.jsonl, quest.json") == "quest_failed, queue/quest.jsonl, quest.json"


def test_only_what_people_read_of_a_template_is_translated():
    source = '<a class="quest"{% if quest > 2 %} href="/quest"{% endif %} title="A quest">Quest {{ quest }}</a><code>quest</code>'
    told = plain_template(source)
    assert told == source.replace("A quest", "A training file").replace(">Quest", ">Training file")


def test_the_switches_lead_back_to_our_own_pages_only(empty):
    with client_of(empty) as client:
        for back, ends_at in (
            ("/jobs?before=7", "/jobs?before=7"),
            ("//evil.example/", "/"),
            ("https://evil.example/", "/"),
            ("/\\evil.example", "/"),
            ("/a\r\nset-cookie: x=y", "/"),
        ):
            answer = client.post("/theme", data={"theme": "light", "back": back}, headers=OURS)
            assert (answer.status_code, answer.headers["location"]) == (303, ends_at)
        assert 'data-theme="light"' in client.get("/jobs", headers=PAGE).text
        assert client.post("/tongue", data={"tongue": "klingon"}, headers=OURS).status_code == 422
        assert client.get("/theme").status_code == 405
        client.cookies.clear()
        nonsense = {"cookie": "realm_theme=red; realm_tongue=<b>"}
        assert 'data-theme="auto" data-tongue="realm"' in client.get("/nowhere", headers=PAGE | nonsense).text


def test_colours_are_named_once_each_by_day_and_by_night():
    sheet = (STATIC / "tavern.css").read_text()
    head, rules = sheet.split("*, *::before", 1)
    assert set(re.findall(r"#[0-9a-f]{3,8}\b|(?:rgb|hsl|oklch)a?\([^)]*\)", rules)) == set(), (
        "use the variables at the top"
    )
    named = set(re.findall(r"^\s+(--[\w-]+):", head, re.MULTILINE))
    assert set(re.findall(r"var\((--[\w-]+)\)", sheet)) <= named


def test_a_problem_is_drawn_and_graded_by_page_and_by_api(empty):
    problem = skill("BIN").sample(9, 4, 3)[2]
    with client_of(empty) as client:
        drawn = client.get("/api/skills/bin/sample?level=9&seed=4&count=3").json()
        assert [one["prompt"] for one in drawn][2] == problem.prompt
        grade = {"problem": drawn[2]["id"], "answer": problem.response}
        assert client.post("/api/skills/BIN/grade", json=grade, headers=OURS).json()["score"] == 1.0
        assert client.post("/api/skills/BIN/grade", json=grade | {"answer": "no"}, headers=OURS).json()["score"] == 0.0
        body = json.dumps(grade | {"answer": "\ud800"})  # half a character, as JSON may spell it
        typed = OURS | {"content-type": "application/json"}
        assert client.post("/api/skills/BIN/grade", content=body, headers=typed).status_code == 422
        for path, body in (
            ("BIN", {"problem": "BIN-99-0-0"}),
            ("BIN", {"problem": "BIN-1-0-100"}),
            ("BIN", {"problem": "<b>"}),
        ):
            assert (
                client.post(f"/api/skills/{path}/grade", json=body | {"answer": "1"}, headers=OURS).status_code == 400
            )
        assert client.get("/api/skills/nothing/sample").status_code == 404
        one = skill("BIN").sample(3, 5, 1)[0]
        address = {"skill": "BIN", "level": 3, "seed": 5}
        assert "Right." in client.get("/skills", params=address | {"answer": one.answer}, headers=PAGE).text
        assert "Not right" in client.get("/skills", params=address | {"answer": "<img src=x>"}, headers=PAGE).text
        assert client.get("/skills?level=-1&seed=999999999999999999999&skill=%00", headers=PAGE).status_code == 200
