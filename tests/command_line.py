"""The command line called within this process: exit code, output and errors, or the JSON that a verb answers with."""

import json
from collections.abc import Callable
from typing import Any

from training.cli import main

Call = Callable[..., tuple[int, str, str]]


def calling(capsys, *first: str) -> Call:
    """Runs `first` and the words it is given; nobody ever sees a trace."""

    def run(*words: Any) -> tuple[int, str, str]:
        try:
            code = main([*first, *map(str, words)])
        except SystemExit as left:
            code = left.code
        told = capsys.readouterr()
        assert "Traceback" not in told.out + told.err
        return code, told.out, told.err

    return run


def asking(call: Call) -> Callable[..., Any]:
    """What `call` answers as JSON."""

    def run(*words: Any) -> Any:
        code, out, err = call(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    return run
