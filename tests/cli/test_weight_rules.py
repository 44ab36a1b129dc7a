"""Rules that make new weights, from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import tl_kit
from tests.cli.conftest import Story
from tests.cli.helpers import MODEL, tlkit
from tests.helpers import write_images
from tl_kit.report_page.saved_results import open_result


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


def test_fitted_weights_are_shown_with_those_that_change_nothing(story: Story, tmp_path: Path) -> None:
    done = tlkit(
        "ensemble", story.checkpoint, story.second.json["checkpoint"], "--rule", "greedy", "--out", tmp_path / "e"
    )
    assert done.code == 0, done.err
    weights = json.loads((tmp_path / "e" / "ensemble.json").read_text())["parameters"]["weights"]
    shown = " ".join(done.out.split())
    assert f"weights: {story.checkpoint} {weights[0]:.2f}" in shown
    assert ("those of weight 0 change nothing" in shown) == (0 in weights)


def test_a_student_that_cannot_be_made_leaves_the_ensemble_and_says_where(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tl_kit, "check_student", lambda model: None)  # its weights were there, and then were not
    members = (story.checkpoint, story.second.json["checkpoint"])
    done = tlkit("ensemble", *members, "--distill", "test_vit3", "--out", tmp_path / "e")
    assert done.code == 2
    assert f"the ensemble is whole, in {tmp_path / 'e'}; only its student is missing" in " ".join(done.err.split())
    assert (tmp_path / "e" / "ensemble.json").is_file()


def test_a_report_of_an_ensemble_is_of_the_images_that_scored_it(story: Story, tmp_path: Path) -> None:
    other = tmp_path / "other"
    drawn = write_images(tmp_path / "drawn", images=7, seed=9)
    for name, colour in zip(story.classes, ("red", "green", "blue"), strict=True):
        shutil.copytree(drawn / colour, other / name)
    members = (story.checkpoint, story.second.json["checkpoint"])
    assert tlkit("ensemble", *members, "--data", other, "--out", tmp_path / "e").code == 0
    saved = open_result(tmp_path / "e")
    assert saved.data == other
    assert tlkit("ensemble", *members, "--out", tmp_path / "own").code == 0
    assert open_result(tmp_path / "own").data == Path(story.data)


def test_a_killed_run_is_told_wherever_it_predicts(story: Story, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    shutil.copytree(story.checkpoint, killed)
    record = json.loads((killed / "tlkit.json").read_text())
    (killed / "tlkit.json").write_text(json.dumps({**record, "status": "running"}))
    for command in (
        ("evaluate", killed, "--data", story.data, "--split", "test"),
        ("ensemble", killed, story.second.json["checkpoint"], "--out", tmp_path / "e"),
        ("predict", killed, story.data),
    ):
        done = tlkit(*command)
        assert done.code == 0, done.err
        said = " ".join(done.err.split())
        assert f"warning: {killed}: its training was cut short" in said
        assert f"tlkit finetune --resume {killed} goes on" in said
    done = tlkit("evaluate", story.checkpoint, "--data", story.data, "--split", "test")
    assert "cut short" not in done.err
