"""A run that ended early: what it had settled and saved is taken over by name, and anything else is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tl_kit.errors import CheckpointError
from tl_kit.storage.unfinished import Unfinished

FACTS = {"policy": "last:2", "precision": None, "crop_mode": ["squash"], "decoder": 3}


def test_only_texts_are_settled() -> None:
    found = Unfinished(Path("run"), None, FACTS, None)
    assert found.settled("policy") == "last:2"
    assert [found.settled(name) for name in ("precision", "crop_mode", "decoder", "teacher")] == [None] * 4
    assert Unfinished(Path("run"), None, {}, None).settled("policy") is None


def test_a_part_of_the_saved_state_is_there_or_an_error_says_so() -> None:
    state = {"parts": {"model": 1}, "settings": ["lr"]}
    found = Unfinished(Path("run"), None, FACTS, state)
    assert found.saved("parts") == {"model": 1}
    for name in ("settings", "result"):
        with pytest.raises(CheckpointError, match=f"run: its saved state has no {name}; remove it"):
            found.saved(name)


def test_of_a_run_that_saved_nothing_every_part_is_empty() -> None:
    assert Unfinished(Path("run"), None, FACTS, None).saved("parts") == {}
