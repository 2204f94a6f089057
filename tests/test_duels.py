"""What the Oracle's page is made of, without a browser: safe words, blind duels, and quests from judged answers."""

import json
import socket
from collections import Counter
from html.parser import HTMLParser

import anyio
import pytest
from hostile_answers import HOSTILE_ANSWERS
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tavern_server import OURS, PAGE

from core import chat_reply
from core.config import Config, Oracle
from core.errors import UserError
from core.formats import form, read
from core.intake import Intake
from core.training_queue import TrainingQueue
from core.validation_process import ValidationProcess
from monitoring.servers.tavern import lessons
from monitoring.servers.tavern.answers import Answer, Listener
from monitoring.servers.tavern.app import create_app
from monitoring.servers.tavern.duels import KEPT, Duels
from monitoring.servers.tavern.markdown import LONGEST, to_html
from monitoring.servers.tavern.oracle_views import pair
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.training_words import training_words

TAGS = {  # every element that may come out, and the attributes that it may have
    "p": set(), "br": set(), "hr": set(), "strong": set(), "em": set(), "s": set(), "blockquote": set(), "pre": set(),
    "ul": set(), "ol": {"start"}, "li": set(), "code": {"class"}, "h3": set(), "h4": set(), "h5": set(), "h6": set(),
    "table": set(), "thead": set(), "tbody": set(), "tr": set(), "th": set(), "td": set(),
    "a": {"href", "title", "target", "rel"},
}  # fmt: skip
QUESTION = [{"role": "user", "content": "What is 1 plus 1?"}]


class Seen(HTMLParser):
    """Refuses every element and attribute that is not on the list."""

    def handle_starttag(self, tag, attributes):
        assert set(dict(attributes)) <= TAGS[tag], (tag, attributes)
        if tag == "a":
            assert dict(attributes)["href"].lower().startswith(("http://", "https://", "mailto:"))
            assert dict(attributes)["rel"] == "noopener noreferrer nofollow"


@given(
    st.lists(
        st.sampled_from([*HOSTILE_ANSWERS, *"<>[]()!`\"'&#*_|-\n\t :", "javascript:", "http://a", "a"]), max_size=12
    ).map("".join)
)
@example("".join(HOSTILE_ANSWERS) + "\n\n| a |\n|--:|\n| b |")
@example("<" * (LONGEST + 1))
def test_nothing_that_acts_comes_out_of_markdown(text):
    seen = Seen()
    seen.feed(to_html(text))
    seen.close()


def test_what_people_write_in_markdown_is_shown():
    html = to_html(
        "# Sum\n\n**1** and `2`\n\n- a\n- b\n\n| x |\n|---|\n| y |\n\n```py\n1 < 2\n```\n[page](https://a.example/?b=c)"
    )
    for wanted in ("<h3>Sum</h3>", "<strong>1</strong>", "<code>2</code>", "<li>b</li>", "<td>y</td>", "1 &lt; 2"):
        assert wanted in html
    assert 'href="https://a.example/?b=c" target="_blank"' in html


def said(words, model="m", thought="") -> Answer:
    answer = Answer(model)
    answer.take({"choices": [{"delta": {"content": words, "reasoning_content": thought}}]})
    answer.take({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    return answer


@pytest.mark.parametrize(
    ("chunks", "thought", "words"),
    [
        (["<think>\nhm", " so\n</think>\n\n", "Yes."], "hm so", "Yes."),
        (["hm so</think>", "Yes."], "hm so", "Yes."),
        (["<think>hm so"], "hm so", ""),
        (["Yes, 1 <thin"], "", "Yes, 1 <thin"),
    ],
)
def test_thoughts_are_told_from_words(chunks, thought, words):
    answer = Answer()
    for text in chunks:
        answer.take({"choices": [{"delta": {"content": text}}]})
    assert (answer.thought, answer.words) == (thought, words)


def heard(*parts: bytes, status=200) -> tuple[Listener, list[dict]]:
    """A listener that heard these parts of a body, and what it passed on."""
    passed_on = []

    async def send(message):
        passed_on.append(message)

    async def speak():
        headers = [
            (b"content-type", b"text/event-stream"),
            (b"x-oracle-checkpoint", b"DIO-7"),
            (b"x-oracle-by", b"local"),
        ]
        await listener({"type": "http.response.start", "status": status, "headers": headers})
        for part in parts:
            await listener({"type": "http.response.body", "body": part, "more_body": part is not parts[-1]})

    listener = Listener(send)
    anyio.run(speak)
    return listener, passed_on


def test_an_answer_that_is_passed_on_does_not_say_who_speaks():
    chunk = {"id": "DIO-7", "model": "DIO-7", "system_fingerprint": "DIO-7"}
    choices = [{"delta": {"reasoning": "1+1", "content": "t"}}, {"delta": {"content": "wo"}, "finish_reason": "stop"}]
    whole = b"".join(chat_reply.event(chunk | {"choices": [choice]}) for choice in choices) + chat_reply.DONE
    listener, passed_on = heard(whole[:50], whole[50:51], whole[51:])
    assert b"DIO" not in repr(passed_on).encode() and b"local" not in repr(passed_on).encode()
    assert listener.whole and listener.answer == Answer("DIO-7", "stop", "two", "1+1")
    told = b"".join(message.get("body", b"") for message in passed_on)
    assert b'"two"' not in told and b'"wo"' in told and told.endswith(chat_reply.DONE)


def test_an_answer_that_breaks_off_is_no_answer():
    broken, _ = heard(
        chat_reply.event({"choices": [{"delta": {"content": "tw"}}]}), chat_reply.error_event("lost", "It broke.")
    )
    refused, passed_on = heard(b'{"error": {"text": "It is ', b'asleep."}}', status=503)
    cut, _ = heard(chat_reply.event({"choices": [{"delta": {"content": "tw"}}]}))
    assert (broken.problem, refused.problem) == ("It broke.", "It is asleep.") and passed_on[0]["status"] == 503
    assert not any(listener.whole for listener in (broken, refused, cut))


def test_who_stands_left_is_drawn_by_lot():
    duels = Duels()
    seats = Counter(duels.begin(QUESTION, ("a", "b"), {}).sides["left"].asked for _ in range(200))
    assert 60 < seats["a"] < 140
    first = duels.begin(QUESTION, ("a", "b"), {})
    for _ in range(KEPT):
        duels.begin(QUESTION, ("a", "b"), {})
    assert duels.get(first.id) is None


def test_a_duel_is_decided_once_and_not_before_both_have_answered():
    duel = Duels(draw=lambda _: 1).begin(QUESTION, ("a", "b"), {})
    with pytest.raises(UserError, match="both must have answered"):
        duel.choose("left")
    for side, words in zip(duel.sides.values(), ("two", "three"), strict=True):
        side.answer = said(words, model=f"DIO-{words}")
    winner, loser = duel.choose("right")
    assert (winner.asked, loser.asked) == ("b", "a") and duel.revealed() == {"left": "DIO-two", "right": "DIO-three"}
    with pytest.raises(UserError, match="decided already"):
        duel.choose("left")
    with pytest.raises(UserError, match="two different models"):
        Duels().begin(QUESTION, ("a", "a"), {})


def test_every_lesson_is_a_row_that_the_realm_reads():
    talk = [*QUESTION, said("two").message(), *QUESTION, said("3").message()]
    preferred = read(form("preference"), lessons.preference(QUESTION, said("two", thought="1+1").message(), talk[3]))
    assert preferred.chosen[0]["reasoning_content"] == "1+1" and preferred.rejected[0]["content"] == "3"
    corrected = read(form("messages"), lessons.correction(talk, "two"))
    assert [turn.get("train", True) for turn in corrected.messages] == [True, False, True, True]
    assert read(form("label"), lessons.dislike(talk)).label is False
    with pytest.raises(UserError, match="same as chosen"):
        lessons.check(lessons.preference(QUESTION, talk[1], talk[1]))


def test_the_realm_does_with_a_lesson_what_the_page_foretold(realm, config, ledger):
    """A correction waits to be trained; what the Judge would learn lies in rejected/, whole, with who made it."""
    talk = [{"role": "system", "content": "Be brief."}, *QUESTION, said("3").message()]
    rows = [
        lessons.correction(talk, "two"),
        lessons.dislike(talk),
        lessons.preference(QUESTION, said("2").message(), talk[-1]),
    ]
    handed_in = [lessons.hand_in(realm, row, "thumb", ("DIO-7",), "normal") for row in rows]
    lanes = ValidationProcess(lambda: None), ValidationProcess(lambda: None)
    intake = Intake(realm, config, ledger, TrainingQueue(realm, ledger), *lanes)
    for lesson in handed_in:
        intake.inbox.renamed_in(realm.inbox / lesson.name)
    now = 0.0
    intake.look(now)
    while intake.busy:
        intake.advance(now)
    for lane in lanes:
        lane.close()
    waiting = {f"{quest.stem}.jsonl": quest for quest in TrainingQueue(realm, ledger).waiting()}
    for lesson, row, school in zip(handed_in, rows, ("scribe", "judge", "judge"), strict=True):
        quest = waiting.pop(lesson.name)
        assert json.loads(quest.path.read_bytes()) == row and f"The {school.capitalize()} teaches it" in lesson.fate
        assert quest.card["school"] == quest.settings.school == school and quest.card["origin"] == "thumb: DIO-7"
    assert not waiting
    corrected = handed_in[0]
    assert TrainingQueue(realm, ledger).claim()
    words = training_words(Realm(realm, config))  # what is trained now sets the tone of the talk
    assert words["system"] == "Be brief." and corrected.name.removesuffix(".jsonl") in words["system_told"]
    assert "<|im_start|>user\n(your question)<|im_end|>" in words["example"]


def test_the_page_is_whole_while_the_box_is_down(realm):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        config = Config(oracle=Oracle(url=f"http://127.0.0.1:{nobody.getsockname()[1]}"))
        with TestClient(create_app(realm, config), base_url="http://127.0.0.1:8888") as client:
            page = client.get("/oracle", headers=PAGE)
            asked = {"model": "hero", "temperature": "1", "max_tokens": "5", "prompt": "Hello?"}
            answer = client.post("/oracle", data=asked, headers=PAGE | OURS)
    assert page.status_code == 200 and "The Oracle&#39;s box is down" in page.text and "cannot be reached" in page.text
    assert answer.status_code == 503 and "cannot be reached" in answer.text


def test_a_good_duel_is_the_hero_against_its_beginnings():
    def model(name, checkpoint, step):
        return {"id": name, "checkpoint": checkpoint, "step": step, "owned_by": "realm" if checkpoint else "box"}

    named = [model("hero", "DIO-9", 9), model("champion", "DIO-0", 0)]
    assert pair([*named, model("DIO-9", "DIO-9", 9), model("DIO-0", "DIO-0", 0)]) == ("hero", "DIO-0")
    assert pair([*named[:1], model("DIO-9", "DIO-9", 9), model("box", None, None)]) == ("hero", "box")
    assert pair(named[:1]) == ("hero", None) and pair([]) == (None, None)
