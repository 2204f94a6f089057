"""`arena` on the command line and in its shell: answers as text and JSON, exit codes, remedies, no torch where none is needed."""

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import asking, calling

from core.arena.league import Arena
from core.paths import CHECKOUT, RealmPaths
from training.cli import main
from training.text_chart import bars, text_chart


@pytest.fixture
def paths(tmp_path, monkeypatch) -> RealmPaths:
    """No realm was made there: the arena makes what it needs."""
    monkeypatch.delenv("REALM_ROOT", raising=False)
    return RealmPaths(tmp_path)


@pytest.fixture
def call(paths, capsys):
    """Runs a command of the arena and gives exit code, output and errors."""
    return calling(capsys, "arena", "--root", str(paths.root))


@pytest.fixture
def ask(call):
    """The JSON that a command answers with."""
    return asking(call)


def test_a_game_from_the_first_agent_to_the_leaderboard(ask, paths):
    born = ask("create_agent", "Tiny", 16, 1, 2)
    assert (born["name"], born["step"], born["parameters"]) == ("Tiny", 0, 3824)
    ask("create_agent", "Small", 24, 1, 2)
    assert [(row["name"], row["current"]) for row in ask("agents")] == [("Tiny", False), ("Small", True)]
    assert ask("switch_agent", "Tiny")["name"] == "Tiny"
    trained = ask("train", 6)
    assert (trained["agent"], trained["step"]) == ("Tiny", 6)
    assert {"loss", "validation_loss", "perplexity", "uniqueness", "novelty", "validity", "score", "energy"} <= set(
        trained
    )
    written = ask("generate", 4, "--agent", "Tiny")
    assert len(written["names"]) == 4 and 0 <= written["novelty"] <= 1
    fight = ask("battle", "Tiny", "Small", 6, "--names", 5)
    assert fight["winner"] in ("Tiny", "Small", None) and set(fight["agents"]) == {"Tiny", "Small"}
    assert [row["winner"] for row in ask("battles")] == [fight["winner"]]
    rows = ask("leaderboard")
    assert [row["rank"] for row in rows] == [1, 2]
    assert all({"name", "score", "energy", "elo", "efficiency", "wins"} <= set(row) for row in rows)
    assert ask("save")["saved"] == "saved"
    assert ask("config", "learning_rate", 10)["config"]["learning_rate"] == 10
    ask("train", 30)
    assert any("exploding" in found["kind"] for found in ask("diagnose")["findings"])
    assert ask("load")["step"] == 12
    assert ask("diagnose")["findings"] == [] and ask("config", "learning_rate")["config"] == {"learning_rate": 0.0089}
    assert ask("rest")["energy"] == ask("energy")["full"]
    assert ask("delete_agent", "Small")["deleted"] == "Small" and not paths.arena_agent("Small").exists()


def test_the_quick_start_of_the_readme_runs_as_written(call):
    section = (CHECKOUT / "README.md").read_text().partition("## The arena")[2]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1]
    told = {}
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        assert words[:4] == ["python", "-m", "training", "arena"]
        code, told[words[4]], err = call(*words[4:])
        assert code == 0, (line, err)
    assert "explod" in told["diagnose"] and "leaderboard" in told["help"]


def test_every_answer_has_a_text_as_well(call):
    for words, told in (
        (("leaderboard",), "create_agent Tiny 16 1 2"),
        (("battles",), "No battle yet"),
        (("create_agent", "Tiny", 16, 1, 2), "3,824 parameters (16 wide, 1 layer, 2 heads)"),
        (("create_agent", "Other", 8, 1, 1), "current agent"),
        (("train", 3), "Other is at step 3"),
        (("generate", 3), "uniqueness"),
        (("battle", "Tiny", "Other", 3, "--names", 3), "energy left"),
        (("battles",), "Tiny - Other"),
        (("leaderboard",), "score / energy"),
        (("agents",), "16/1/2"),
        (("config",), "learning_rate"),
        (("diagnose",), "healthy"),
        (("visualize", "loss"), "┤"),
        (("visualize", "gradients"), "layer 1 mlp"),
        (("save", "good"), "is saved as good"),
        (("load", "good"), "is again as it was"),
        (("save", "Tiny"), "Tiny at step 3 is saved as saved"),
        (("energy",), "of 1,000 energy"),
        (("rest",), "rested (1 time"),
        (("switch_agent", "Tiny"), "at step 3"),
        (("help",), "leaderboard"),
        (("help", "train"), "train STEPS"),
    ):
        code, out, err = call(*words)
        assert code == 0 and told in out, (words, out, err)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("create_agent", "Odd", 10, 1, 3), 1, "take n_embd = 9 or 12"),
        (("create_agent", "Odd", 0, 1, 1), 2, "whole number from 1"),
        (("create_agent", "../Odd", 16, 1, 2), 1, "take letters, digits and _"),
        (("create_agent", "tiny", 16, 1, 2), 1, "there is an agent Tiny already"),
        (("create_agent", "Odd", 16, 1), 2, "N_HEAD"),
        (("train", -5), 2, "whole number from 1"),
        (("train", "many"), 2, "whole number from 1"),
        (("train", 5, "--agent", "Tinny"), 1, "did you mean 'Tiny'"),
        (("train", 900_000), 1, "`rest` refills it"),
        (("trian", 5), 2, "did you mean 'train'"),
        (("switch_agent", "Nobody"), 1, "there is no agent 'Nobody'"),
        (("generate", 0), 2, "whole number"),
        (("battle", "Tiny", "Tiny", 5), 1, "cannot fight itself"),
        (("battle", "Tiny", "Nobody", 5), 1, "there is no agent 'Nobody'"),
        (("config", "learning_rat", 1), 1, "did you mean 'learning_rate'"),
        (("config", "learning_rate", "fast"), 1, "must be a number above 0"),
        (("config", "learning_rate", "nan"), 1, "must be a number above 0"),
        (("config", "batch_size", "0"), 1, "whole number from 1"),
        (("config", "device", "tpu"), 1, "cpu or cuda"),
        (("load",), 1, "`save` keeps one"),
        (("save", "a/b"), 1, "cannot be the name of a saved state"),
        (("visualize", "loss"), 1, "has not been trained yet"),
        (("visualize", "los"), 2, "did you mean 'loss'"),
        (("train", 1, "--data", "nowhere.txt"), 1, "nowhere.txt: No such file"),
        (("train", 1, "--data", "/"), 1, "is a folder"),
        (("help", "trian"), 1, "did you mean 'train'"),
        (("train", 5, "--agent", ""), 1, "there is no agent ''"),
        (("config", "clip", 2, "--agent", ""), 1, "there is no agent ''"),
        (("switch_agent", ""), 1, "there is no agent ''"),
        (("delete_agent", ""), 1, "there is no agent ''"),
        (("battle", "", "Tiny", 1), 1, "there is no agent ''"),
        (("battle", "Tiny", "", 1), 1, "there is no agent ''"),
        (("promote", ""), 1, "there is no agent ''"),
        (("save", "Tinny"), 1, "did you mean 'Tiny'"),
        (("save", "champion"), 1, "take another name"),
        (("save", ""), 1, "cannot be the name of a saved state"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_remedy_and_changes_nothing(call, paths, words, code, told):
    call("create_agent", "Tiny", 16, 1, 2)
    before = paths.arena_book.read_bytes()
    found, out, err = call(*words)
    assert found == code and told in err and out == "" and "Traceback" not in err
    assert paths.arena_book.read_bytes() == before


def test_without_an_agent_the_way_to_one_is_told(call):
    for words in (
        ("train", 1),
        ("generate",),
        ("diagnose",),
        ("config",),
        ("save",),
        ("visualize", "loss"),
        ("promote",),
    ):
        code, _, err = call(*words)
        assert code == 1 and "`create_agent Tiny 16 1 2`" in err, words


def test_texts_that_cannot_be_learned_are_refused(call, tmp_path):
    call("create_agent", "Tiny", 16, 1, 2)
    for content, told in (
        (b"", "it is empty"),
        (b"\0\1\2", "it is binary"),
        (b"a\xff\nb", "not UTF-8"),
        (b"a\na\n", "two are needed"),
    ):
        (tmp_path / "text").write_bytes(content)
        for words in (("train", 1), ("battle", "Tiny", "Tiny2", 1), ("diagnose",)):
            call("create_agent", "Tiny2", 16, 1, 2)
            code, _, err = call(*words, "--data", tmp_path / "text")
            assert code == 1 and told in err, words


def test_a_picture_is_drawn_where_it_is_wanted(ask, call, paths, tmp_path):
    ask("create_agent", "Tiny", 16, 1, 2)
    ask("train", 3)
    told = ask("visualize", "gradients", "--out", tmp_path / "mine.svg")
    assert Path(told["picture"]).read_text().startswith("<svg") and len(told["values"]) == 3
    assert {"embedding", "layer 1 attention", "layer 1 mlp", "final norm"} == set(told["layers"])
    assert Path(ask("visualize", "loss")["picture"]).parent == paths.arena_pictures
    assert call("visualize", "loss", "--out", tmp_path / "no" / "x.svg")[0] == 1


def test_two_agents_of_one_shape_are_no_twins_unless_they_have_one_seed(ask):
    for name, *seed in (("One",), ("Two",), ("Three", "--seed", 7), ("Four", "--seed", 7)):
        ask("create_agent", name, 8, 1, 1, *seed)
    assert ask("battle", "One", "Two", 3, "--names", 5)["winner"] in ("One", "Two")
    assert ask("battle", "Three", "Four", 3, "--names", 5)["draw"]


def test_what_is_new_is_told_beside_any_text(ask, tmp_path):
    ask("create_agent", "Tiny", 16, 1, 2)
    ask("train", 3)
    same = ask("generate", 20, "--seed", 1)
    (tmp_path / "known.txt").write_text("\n".join(name for name in (*same["names"], "zz", "yy") if name))
    again = ask("generate", 20, "--seed", 1, "--data", tmp_path / "known.txt")
    assert again["novelty"] < same["novelty"] and set(again["names"]) & set(same["names"])


def test_a_word_is_an_agent_or_a_state_of_the_current_ones_own(ask):
    ask("create_agent", "Tiny", 16, 1, 2)
    assert ask("save", "Tinny", "--agent", "Tiny")["saved"] == "Tinny"
    assert ask("save", "Tinny")["states"] == ["Tinny"]  # it is known by now
    ask("save", "Small")
    ask("create_agent", "Small", 8, 1, 1)
    ask("switch_agent", "Tiny")
    assert ask("load", "Small")["name"] == "Tiny"
    assert ask("save", "Small")["agent"] == "Small"
    ask("switch_agent", "Small")
    ask("save", "Tiny", "--agent", "Tiny")
    assert ask("load", "Tinny", "--agent", "Tiny")["name"] == "Tiny"


def test_a_battle_ends_with_whoever_began_it(ask, call, paths):
    for name in ("One", "Two"):
        ask("create_agent", name, 8, 1, 1)
    assert "broken off" in call("battle", "One", "Two", 9, "--parent", 1)[2] and Arena(paths).read().fought == 0
    assert call("battle", "One", "Two", 2, "--names", 1, "--parent", os.getppid())[0] == 0


def test_a_promoted_agent_is_named_with_what_to_do_next(ask, call, paths):
    ask("create_agent", "Tiny", 16, 1, 2)
    assert ask("promote") | {"path": ""} == {"agent": "Tiny", "model": "Tiny", "path": "", "step": 0}
    assert (paths.models / "Tiny" / "model.safetensors").is_file()
    assert "is there already" in call("promote", "Tiny")[2]


def test_what_needs_no_living_agent_answers_without_torch(paths):
    program = (
        "import sys; from training.cli import main\n"
        "for words in (['create_agent', 'Tiny', '16', '1', '2'], ['leaderboard'], ['help'], ['energy'], ['config', 'clip', '2'],"
        " ['save'], ['load'], ['rest'], ['train', '900000']): main(['arena', *words])\n"
        "print(*sorted({'torch', 'transformers'} & set(sys.modules)), 'end')"
    )
    environment = {**os.environ, "REALM_ROOT": str(paths.root)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].strip() == "end", done.stderr


# The shell


def shell(paths: RealmPaths, text: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "training", "arena", "--root", str(paths.root)]
    return subprocess.run(command, cwd=CHECKOUT, input=text, capture_output=True, text=True, timeout=100)


def test_a_script_is_read_from_a_pipe(paths):
    done = shell(paths, "create_agent Tiny 16 1 2  # the first one\n\nenergy --json\nleaderboard\nquit\nrest\n")
    assert done.returncode == 0 and done.stderr == ""
    assert "Tiny is born" in done.stdout and '"full": 1000.0' in done.stdout and "rested" not in done.stdout


def test_a_script_goes_on_after_a_mistake_and_says_so_at_the_end(paths):
    done = shell(paths, "trian 5\ncreate_agent 'Tiny 16\ntrain 5\ncreate_agent Tiny 16 1 2")
    assert done.returncode == 1 and "Tiny is born" in done.stdout
    assert "did you mean 'train'" in done.stderr and "No closing quotation" in done.stderr
    assert "there is no agent yet" in done.stderr and "Traceback" not in done.stderr


def test_a_home_is_found_and_an_error_of_ours_ends_one_command_alone(paths, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.txt").write_text("ab\nba\n")
    done = shell(paths, "create_agent Tiny 16 1 2 --data ~/mine.txt\n")
    assert done.returncode == 0 and Arena(paths).read().agent().state.title == "mine.txt"
    paths.arena_book.rename(tmp_path / "kept")
    paths.arena_book.mkdir()  # which no command expects
    done = shell(paths, "energy\nhelp train\n")
    assert done.returncode == 1 and "internal error" in done.stderr and "train STEPS" in done.stdout


def test_ctrl_c_at_the_prompt_leaves_the_line_and_not_the_shell(paths):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "training", "arena", "--root", str(paths.root)]
    child = subprocess.Popen(command, cwd=CHECKOUT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    seen = b""
    try:
        while b"arena - 1,000> " not in seen:
            seen += os.read(ours, 1024)
        os.write(ours, b"rest and")
        while (
            seen.count(b"arena - 1,000> ") < 2
        ):  # a signal that comes before the prompt waits is not seen until the next
            child.send_signal(signal.SIGINT)
            while select.select([ours], [], [], 0.5)[0] and child.poll() is None:
                seen += os.read(ours, 1024)
            assert child.poll() is None, seen
        os.write(ours, b"quit\n")
        assert child.wait(30) == 0 and seen.count(b"quit` leaves") == 1 and b"Traceback" not in seen
    finally:
        child.kill()
        child.wait()
        os.close(ours)


def test_at_a_terminal_it_completes_what_is_typed_and_remembers_it(paths):
    assert main(["arena", "--root", str(paths.root), "create_agent", "Tiny", "16", "1", "2"]) == 0
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "training", "arena", "--root", str(paths.root)]
    child = subprocess.Popen(
        command, cwd=CHECKOUT, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}
    )
    os.close(theirs)
    seen = b""
    while b"arena Tiny 1,000> " not in seen:
        seen += os.read(ours, 1024)
    os.write(ours, b"sw\tTi\t\nquit\n")
    while child.poll() is None:
        try:
            seen += os.read(ours, 1024)
        except OSError:  # it has ended
            break
    assert child.wait() == 0
    assert b"Tiny is the current agent" in seen.replace(b"\x1b[33m", b"").replace(b"\x1b[0m", b"")
    assert paths.arena_history.read_text().splitlines() == ["switch_agent Tiny ", "quit"]
    assert Arena(paths).read().current == "Tiny"


# Charts of the terminal


def test_a_curve_is_drawn_from_its_highest_to_its_lowest_value():
    lines = text_chart([3.0, 2.0, float("nan"), 1.0], width=8, height=3).splitlines()
    assert lines[0].startswith("3 ┤") and lines[2].startswith("1 ┤") and lines[-1].strip() == "1      4"
    assert any("\u2801" <= letter <= "\u28ff" for letter in lines[0])
    assert text_chart([float("nan")]) == text_chart([]) == "nothing to draw: there is no number"


def test_bars_are_longer_for_larger_numbers():
    long, short, none = bars({"a": 1.0, "bb": 0.01, "c": 0.0}).splitlines()
    assert long.count("█") > short.count("█") > 0 and none.split() == ["c", "0"]
