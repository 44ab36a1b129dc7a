"""Progress in a notebook: one bar, reset for each stage, and one place for messages and epochs."""

from __future__ import annotations

from typing import Any

import IPython
import pytest
import tqdm.auto
from IPython import display as ipython_display

import tl_kit
from tl_kit.errors import ConfigError
from tl_kit.reporting import UNKNOWN

Pages = list[str]


class Bar:
    """A stand-in for tqdm's bar in a notebook, with the calls that it gets."""

    made: list[Bar]

    def __init__(self, **options: Any) -> None:
        self.calls: list[tuple[Any, ...]] = [("new", options)]
        Bar.made.append(self)

    def __getattr__(self, name: str) -> Any:
        return lambda *values, **options: self.calls.append((name, *values, options))


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Pages:
    """What was shown, each time anew."""
    found: Pages = []

    class Handle:
        def update(self, content: Any) -> None:
            found.append(content.data)

    def display(content: Any, *, display_id: bool) -> Handle:
        assert display_id
        assert not found, "one place, which is updated"
        found.append(content.data)
        return Handle()

    Bar.made = []
    monkeypatch.setattr(IPython, "get_ipython", object)
    monkeypatch.setattr(ipython_display, "display", display)
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    return found


def test_one_bar_serves_all_stages(pages: Pages) -> None:
    reporter = tl_kit.NotebookReporter()
    reporter.start("decode", 12)
    reporter.advance(5)
    reporter.start("epoch 1/2", 30)
    reporter.advance(30, loss=0.5, data_wait=0.25)
    (bar,) = Bar.made
    assert bar.calls[0] == ("new", {"desc": "decode", "total": 12})
    assert ("update", 5, {}) in bar.calls
    assert ("reset", {"total": 30}) in bar.calls
    assert bar.calls.index(("reset", {"total": 30})) < bar.calls.index(("update", 30, {}))
    assert ("set_postfix_str", "loss 0.500  data wait 25.0 %", {"refresh": False}) in bar.calls
    assert pages == []


def test_a_stage_without_a_total_shows_none(pages: Pages) -> None:
    reporter = tl_kit.NotebookReporter()
    reporter.start("decode", 12)
    reporter.start("unpack", UNKNOWN)
    (bar,) = Bar.made
    assert bar.total is None
    assert ("reset", {"total": None}) in bar.calls


def test_messages_and_epochs_stand_in_one_place(pages: Pages) -> None:
    reporter = tl_kit.NotebookReporter()
    reporter.message("weights: <none> & more\x1b[0m")
    reporter.epoch({"epoch": 1, "loss": 0.5, "val_accuracy": 0.75, "lr": 1e-3, "unknown": 3.0})
    reporter.epoch({"epoch": 2, "loss": 0.25, "val_accuracy": 0.875, "lr": 5e-4})
    assert len(pages) == 3
    assert "weights: &lt;none&gt; &amp; more\\x1b[0m" in pages[-1]
    assert pages[-1].count("<tr>") == 1 + 2
    assert "87.5 %" in pages[-1]
    assert "unknown" not in pages[-1]


def test_outside_of_a_notebook_it_says_so() -> None:
    with pytest.raises(ConfigError, match="NotebookReporter: is for notebooks"):
        tl_kit.NotebookReporter()
