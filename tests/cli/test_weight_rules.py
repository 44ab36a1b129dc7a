"""Rules that make new weights, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Story
from tests.cli.helpers import MODEL, tlkit


def test_concat_is_shown_and_evaluates(story: Story, tmp_path: Path) -> None:
    members = (story.checkpoint, story.second.json["checkpoint"])
    done = tlkit("ensemble", *members, "--rule", "concat", "--out", tmp_path / "e")
    assert done.code == 0, done.err
    assert "ensemble (concat)" in done.out
    assert "concat: one head on" in done.out
    assert "accuracy without it" not in done.out
    receipt = json.loads((tmp_path / "e" / "ensemble.json").read_text())["receipt"]
    scores = tlkit("evaluate", tmp_path / "e", "--data", story.data, "--split", "test", "--json").json
    assert scores["metrics"] == receipt["ensemble"]["test"]


def test_a_soup_of_runs_from_one_file_is_one_forward_pass(story: Story, tmp_path: Path) -> None:
    start = ("finetune", MODEL, "--data", story.data, "--weights", Path(story.checkpoint) / "model.safetensors")
    quick = ("--img-size", 32, "--policy", "full", "--epochs", 1, "--batch-size", 8)
    for seed in range(2):
        run = tlkit(*start, *quick, "--seed", seed, "--out", tmp_path / str(seed))
        assert run.code == 0, run.err
    done = tlkit("ensemble", tmp_path / "0", tmp_path / "1", "--rule", "soup", "--out", tmp_path / "e")
    assert done.code == 0, done.err
    assert "An image: 1 forward pass," in done.out
    assert "soup: " in done.out


def test_what_cannot_be_averaged_is_one_line(story: Story, tmp_path: Path) -> None:
    for rule in ("soup", "greedy-soup"):
        done = tlkit("ensemble", story.checkpoint, story.second.json["checkpoint"], "--rule", rule)
        assert done.code == 2
        last = done.err.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert "cannot be averaged" in last
    done = tlkit("ensemble", story.checkpoint, story.second.json["checkpoint"], "--rule", "sou")
    assert "did you mean 'soup'" in done.err
