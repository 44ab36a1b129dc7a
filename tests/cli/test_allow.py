"""``--allow``: what the doctor calls an error stops ``finetune`` and ``plan``, and goes through once it is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.helpers import MODEL, TINY, Outcome, tlkit
from tests.helpers import write_images
from tl_kit.data.findings import BLOCKING


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """Sound: three splits, two classes."""
    for seed, (split, count) in enumerate({"train": 8, "val": 4, "test": 4}.items()):
        write_images(tmp_path / "images" / split, ("red", "green"), images=count, seed=seed)
    return tmp_path / "images"


def plant(root: Path, fault: str) -> None:
    original = root / "train" / "red" / "0-0.png"
    if fault == "split-leak":
        shutil.copy(original, root / "test" / "red" / "copy.png")
    if fault == "label-conflict":
        shutil.copy(original, root / "train" / "green" / "copy.png")
    if fault == "class-missing":
        shutil.rmtree(root / "test" / "green")
    if fault == "class-above-split":
        for label in ("red", "green"):
            (root / "val" / label).rename(root / "train" / label / "validation")
        shutil.rmtree(root / "val")


def finetune(data: Path, *flags: object) -> Outcome:
    return tlkit("finetune", MODEL, "--data", data, *TINY, "--policy", "head", "--out", data.parent / "run", *flags)


def test_sound_data_need_nothing_allowed(splits: Path) -> None:
    done = finetune(splits)
    assert done.code == 0, done.err
    assert "allowed" not in done.err


@pytest.mark.parametrize("fault", ["split-leak", "label-conflict", "class-missing", "class-above-split"])
def test_each_error_stops_and_is_lifted_by_its_name(fault: str, splits: Path) -> None:
    plant(splits, fault)
    doctor = tlkit("doctor", "--data", splits)
    assert doctor.code == 1
    assert f"finetune --allow {fault}" in doctor.out
    stopped = finetune(splits)
    assert stopped.code == 2
    (line,) = stopped.err.strip().splitlines()
    assert line.startswith(f"error: {splits}: {fault}: ")
    assert not (splits.parent / "run").exists()
    allowed = finetune(splits, "--allow", fault, "--json")
    assert allowed.json["test"]["accuracy"] >= 0
    assert f"allowed: {fault}: " in allowed.err
    meta = json.loads((splits.parent / "run" / "tlkit.json").read_text())
    assert meta["config"]["allow"] == [fault]
    scored = tlkit("evaluate", splits.parent / "run", "--data", splits, "--json")
    assert scored.json["metrics"]["accuracy"] == allowed.json["test"]["accuracy"]


def test_a_group_that_spans_splits(splits: Path) -> None:
    """``0-0.png`` is in train, ``2-0.png`` in test: the same number, as a pattern reads it."""
    pattern = ("--group-pattern", "-([0-9]+)")
    assert tlkit("doctor", "--data", splits, *pattern).code == 1
    stopped = finetune(splits, *pattern)
    assert stopped.code == 2
    assert "group-leak: " in stopped.err
    assert finetune(splits, *pattern, "--allow", "group-leak").code == 0


def test_plan_stops_where_finetune_would(splits: Path) -> None:
    plant(splits, "split-leak")
    stopped = tlkit("plan", MODEL, "--data", splits, *TINY)
    assert stopped.code == 2
    assert "split-leak" in stopped.err
    done = tlkit("plan", MODEL, "--data", splits, *TINY, "--policy", "head", "--allow", "split-leak")
    assert done.code == 0, done.err


def test_folds_pool_what_leaks_and_mind_only_the_labels(splits: Path) -> None:
    plant(splits, "split-leak")
    folds = ("--folds", 2)
    done = finetune(splits, *folds)
    assert done.code == 0, done.err
    shutil.rmtree(splits.parent / "run")
    plant(splits, "label-conflict")
    stopped = finetune(splits, *folds)
    assert stopped.code == 2
    assert "label-conflict" in stopped.err
    assert finetune(splits, *folds, "--allow", "label-conflict").code == 0


@pytest.mark.parametrize("command", ["finetune", "plan"])
def test_what_is_no_name_is_refused(command: str, splits: Path) -> None:
    for name in ("split-leek", "unusable", "all"):
        done = tlkit(command, MODEL, "--data", splits, *TINY, "--allow", name)
        known = ", ".join(BLOCKING)
        assert (done.code, done.err) == (2, f"error: --allow {name}: known are {known}\n")


def test_the_help_names_all_that_can_be_allowed() -> None:
    text = " ".join(tlkit("finetune", "-h").out.split())
    assert all(name in text for name in BLOCKING)


def test_the_report_says_what_belongs_together_and_what_to_do(splits: Path) -> None:
    plant(splits, "split-leak")
    done = tlkit("doctor", "--data", splits, "--json")
    assert done.code == 1
    leak = json.loads(done.out)["findings"][0]
    assert leak["code"] == "split-leak"
    assert [sorted(Path(path).name for path in members) for members in leak["sets"]] == [["0-0.png", "copy.png"]]
    assert leak["remedy"] == "remove all but one of each"
