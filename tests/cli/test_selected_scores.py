"""Scores that selected something are marked wherever they are shown, and the way to an honest figure is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.helpers import MODEL, TINY, Outcome, tlkit

pytestmark = pytest.mark.usefixtures("plain_pictures")

SHORT = (*TINY, "--policy", "full", "--batch-size", 8, "--keep-epoch", "best")
HINT = "--folds 5"


def noise(root: Path, *, seed: int = 0, **images: int) -> Path:
    """Given splits of noise in two classes: labels that mean nothing, so many images a split."""
    rng = np.random.default_rng(seed)
    for split, count in images.items():
        for number in range(count):
            folder = root / split / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def random_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise(tmp_path_factory.mktemp("random") / "images", train=40, val=20)


@pytest.fixture(scope="module")
def with_test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise(tmp_path_factory.mktemp("three") / "images", train=16, val=12, test=12)


@pytest.fixture(scope="module")
def pair(random_labels: Path) -> list[Path]:
    """Two runs that chose their epoch on the validation images."""
    out = random_labels.parent
    for name, options in (("a", (*SHORT, "--epochs", 4)), ("b", (*SHORT, "--epochs", 3))):
        assert tlkit("finetune", MODEL, "--data", random_labels, *options, "--out", out / name).code == 0
    return [out / "a", out / "b"]


def head(done: Outcome) -> str:
    return done.out.splitlines()[0]


def marked(done: Outcome, *, chose: str) -> None:
    """The first table marks val, and a line below it says what these images chose."""
    assert done.code == 0, done.err
    assert "val*" in head(done)
    notes = [line for line in done.out.splitlines() if line.startswith("* ")]
    assert len(notes) == 1
    assert "selected on" in notes[0]
    assert chose in notes[0]


def meta(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "tlkit.json").read_text())
    return found


@pytest.mark.parametrize(
    ("options", "chose"),
    [
        ((*SHORT, "--epochs", 1, "--swa"), "whether averaged weights are kept"),
        ((*TINY, "--policy", "lp-ft", "--epochs", 1, "--batch-size", 8), "the best epoch"),
        ((*SHORT, "--epochs", 3, "--schedule", "plateau"), "when the rate drops"),
    ],
)
def test_random_labels_the_validation_figure_is_marked_in_table_and_json(
    random_labels: Path, tmp_path: Path, options: tuple[object, ...], chose: str
) -> None:
    done = tlkit("finetune", MODEL, "--data", random_labels, *options, "--out", tmp_path / "run")
    marked(done, chose=chose)
    assert HINT in done.out, "without a test split, the way to an estimate"
    assert "cross-validated over" not in done.out
    assert meta(tmp_path / "run")["kinds"] == {"val": "selected on"}
    warned = tlkit("evaluate", tmp_path / "run", "--data", random_labels, "--split", "val")
    line = next(
        line for line in warned.err.splitlines() if line.startswith("warning: 20 of the 20 images of val chose")
    )
    assert chose in line
    assert "val (selected on), 20 images" in warned.out


def test_json_has_the_mark_too_and_stderr_the_way_to_an_estimate(random_labels: Path, tmp_path: Path) -> None:
    options = (*SHORT, "--epochs", 2, "--out", tmp_path / "run", "--json")
    found = tlkit("finetune", MODEL, "--data", random_labels, *options)
    assert found.json["kinds"] == {"val": "selected on"}
    assert found.json["chosen_by_val"] == ["epoch"]
    assert [line for line in found.err.splitlines() if line.startswith("* val (selected on): ")]
    assert HINT in found.err


def test_a_head_in_closed_form_leaves_the_validation_images_alone(random_labels: Path, tmp_path: Path) -> None:
    """Its penalty comes from the training images, and what validation says of random labels is chance."""
    done = tlkit("finetune", MODEL, "--data", random_labels, *TINY, "--policy", "head", "--out", tmp_path / "run")
    assert head(done).split() == ["val"]
    assert "cross-validated over" in done.out
    assert meta(tmp_path / "run")["kinds"] == {"val": "test"}
    assert meta(tmp_path / "run")["chosen_by_val"] == []
    assert meta(tmp_path / "run")["val"]["nll"] > 0.6


def test_what_chose_nothing_is_not_marked(random_labels: Path, tmp_path: Path) -> None:
    """One epoch, from weights that nothing was compared with: validation has only been looked at."""
    options = (*SHORT, "--epochs", 1, "--out", tmp_path / "run")
    done = tlkit("finetune", MODEL, "--data", random_labels, *options)
    assert head(done).split() == ["val"]
    assert HINT not in done.out + done.err
    assert meta(tmp_path / "run")["kinds"] == {"val": "test"}
    found = tlkit("evaluate", tmp_path / "run", "--data", random_labels, "--split", "val", "--json")
    assert (found.json["kind"], found.json["seen"]) == ("test", {"train": 0, "selected_on": 0})
    assert "warning" not in found.err


def test_a_test_split_needs_no_hint(with_test: Path, tmp_path: Path) -> None:
    done = tlkit("finetune", MODEL, "--data", with_test, *SHORT, "--epochs", 3, "--out", tmp_path / "run")
    marked(done, chose="the best epoch")
    assert head(done).split() == ["val*", "test"]
    assert HINT not in done.out + done.err


def test_copies_of_training_images_in_test_make_it_no_test(with_test: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(with_test, tmp_path / "images"))
    shutil.copyfile(data / "train" / "a" / "0.png", data / "test" / "a" / "copy.png")
    options = (*SHORT, "--epochs", 1, "--allow", "split-leak", "--out", tmp_path / "run")
    done = tlkit("finetune", MODEL, "--data", data, *options)
    assert done.code == 0, done.err
    assert head(done).split() == ["val", "test*"]
    assert meta(tmp_path / "run")["kinds"] == {"val": "test", "test": "mixed"}


def test_members_mark_the_figure_that_chose_and_snapshots_do_not(random_labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "members"
    drawn = (*SHORT, "--epochs", 2, "--members", 2, "--vary", "bootstrap", "--out", out)
    done = tlkit("finetune", MODEL, "--data", random_labels, *drawn)
    marked(done, chose="the best epoch")
    assert HINT in done.out
    summary = json.loads((out / "members.json").read_text())
    assert [member["kinds"] for member in summary["members"]] == [{"val": "selected on"}] * 2
    run = tmp_path / "run"
    done = tlkit("finetune", MODEL, "--data", random_labels, *SHORT, "--epochs", 2, "--snapshots", 2, "--out", run)
    marked(done, chose="the best epoch")
    table = next(line for line in done.out.splitlines() if "step" in line)
    assert "val accuracy" in table
    assert meta(run / "snapshot-1")["kinds"] == {"val": "test"}, "its weights follow from the number of steps alone"


def test_folds_score_by_images_that_chose_nothing(with_test: Path, tmp_path: Path) -> None:
    options = (*SHORT, "--epochs", 2, "--folds", 2, "--out", tmp_path / "folds")
    found = tlkit("finetune", MODEL, "--data", with_test, *options, "--json").json
    assert found["kind"] == "out of fold"
    assert [fold["kinds"] for fold in found["folds"]] == [{"val": "selected on", "test": "test"}] * 2
    shown = tlkit("ensemble", *(tmp_path / "folds" / f"fold-{n}" for n in (1, 2)), "--out", tmp_path / "e")
    assert shown.code == 0, shown.err
    assert "*" not in head(shown)
    receipt = json.loads((tmp_path / "e" / "ensemble.json").read_text())["receipt"]
    assert (receipt["out_of_fold"]["kind"], receipt["kinds"]) == ("out of fold", {"test": "test"})


@pytest.mark.parametrize("rule", ["mean", "auto", "greedy-soup"])
def test_an_ensemble_marks_what_its_members_and_its_rule_were_chosen_by(
    random_labels: Path, pair: list[Path], tmp_path: Path, rule: str
) -> None:
    members = pair if rule != "greedy-soup" else [pair[0], Path(shutil.copytree(pair[0], tmp_path / "copy"))]
    if rule == "greedy-soup":
        for member in members:
            pretend_pretrained(member)
    done = tlkit("ensemble", *members, "--rule", rule, "--no-calibrate", "--out", tmp_path / "e")
    assert done.code == 0, done.err
    tables = [line for line in done.out.splitlines() if "val" in line and "accuracy" in line and "nll" in line]
    assert tables
    assert all("val*" in line for line in tables if "without it" not in line)
    notes = [line for line in done.out.splitlines() if line.startswith("* ")]
    assert len(notes) == 1
    assert "selected on" in notes[0]
    assert ("the rule" in notes[0]) == (rule != "mean")
    assert HINT in done.out
    stored = json.loads((tmp_path / "e" / "ensemble.json").read_text())
    assert stored["receipt"]["kinds"] == {"val": "selected on"}
    assert {tuple(m["kinds"].items()) for m in stored["receipt"]["members"]} == {(("val", "selected on"),)}
    warned = tlkit("evaluate", tmp_path / "e", "--data", random_labels, "--split", "val", "--json")
    assert (warned.json["kind"], warned.json["seen"]) == ("selected on", {"train": 0, "selected_on": 20})
    assert "20 of the 20 images of val chose" in warned.err


def pretend_pretrained(folder: Path) -> None:
    """What the soups ask for: one pretrained file that both members come from."""
    content = meta(folder)
    content["weights"] |= {"sha256": "0" * 64, "loaded": 10}
    (folder / "tlkit.json").write_text(json.dumps(content))
