"""The command line as a function: arguments in, exit code and both streams out."""

from __future__ import annotations

import io
import json
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import pytest

from tests import children
from tl_kit.cli import main

MODEL = "test_resnet.r160_in1k"
TINY = ("--weights", "none", "--img-size", 32)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What stdout holds, which must be one JSON object on one line."""
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1
        assert self.out.endswith("\n")
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


def start(*arguments: object, **streams: int) -> subprocess.Popen[str]:
    """``tlkit`` in a process of its own."""
    return children.start("from tl_kit.cli import main; main()", *arguments, **streams)


def tlkit(*arguments: object) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert isinstance(stop.value.code, int)
    return Outcome(stop.value.code, out.getvalue(), err.getvalue())
