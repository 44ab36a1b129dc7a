"""What models, ensembles, folds and students have seen: evaluate warns of it, and chooses its split by it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tl_kit
from tests.helpers import Listener, quick, quick_config, write_images
from tl_kit import DistillConfig, EnsembleConfig, Evaluation
from tl_kit.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("plain_pictures")

ONCE = {"epochs": 1}  # one epoch chooses nothing


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "data", images=15)


@pytest.fixture(scope="module")
def runs(data: Path) -> list[Path]:
    """Neither has chosen anything by validation."""
    for number in range(2):
        quick(data, data.parent / str(number), seed=number, **ONCE)
    return [data.parent / "0", data.parent / "1"]


@pytest.fixture(scope="module")
def fitted(runs: list[Path]) -> Path:
    """Its rule was fitted on the validation images."""
    return combine(runs, runs[0].parent / "fitted", rule="weighted")


def combine(members: list[Path], out: Path, **options: Any) -> Path:
    options = {"calibrate": False, **options}
    tl_kit.ensemble(EnsembleConfig(checkpoints=tuple(members), out=out, bootstrap=50, **options))
    return out


def scored(model: Path, data: Path, **options: Any) -> tuple[Evaluation, list[str]]:
    listener = Listener()
    found = tl_kit.evaluate(model, data, reporter=listener, **options)
    return found, [text for text in listener.messages if text.startswith("warning")]


def change(folder: Path, name: str, **data: Any) -> None:
    content = json.loads((folder / name).read_text())
    content["data"] = {key: value for key, value in {**content["data"], **data}.items() if value is not None}
    (folder / name).write_text(json.dumps(content))


def test_training_and_validation_images_are_counted_apart(data: Path, tmp_path: Path) -> None:
    quick(data, tmp_path / "run", epochs=2, keep_epoch="best")
    found, warnings = scored(tmp_path / "run", data, split="all")
    split = json.loads((tmp_path / "run" / "tlkit.json").read_text())["data"]
    assert found.seen == {"train": len(split["train"]), "selected_on": len(split["val"])}
    assert found.kind == "mixed"
    assert [text.split(";")[0] for text in warnings] == [
        f"warning: {len(split['train'])} of the 45 images of all were trained on",
        f"warning: {len(split['val'])} of the 45 images of all chose the best epoch",
    ]
    found, warnings = scored(tmp_path / "run", data)
    assert (found.split, found.kind, found.seen, warnings) == ("test", "test", {"train": 0, "selected_on": 0}, [])


def test_copies_elsewhere_under_other_names_and_labels_are_known(data: Path, tmp_path: Path) -> None:
    quick(data, tmp_path / "run", epochs=2, keep_epoch="best")
    names = {"red": "green", "green": "blue", "blue": "red"}
    for folder in data.iterdir():
        shutil.copytree(folder, tmp_path / "other" / names[folder.name])
    found, _ = scored(tmp_path / "run", tmp_path / "other", split="all")
    assert found.seen["train"] > 0
    assert found.seen["selected_on"] > 0
    assert scored(tmp_path / "run", tmp_path / "other")[0].split == "test", "not all of them, by default"


def test_an_ensemble_remembers_what_its_rule_was_fitted_on(data: Path, runs: list[Path], fitted: Path) -> None:
    assert scored(runs[0], data, split="val")[0].kind == "test"
    found, (warning,) = scored(fitted, data, split="val")
    assert (found.kind, found.seen) == ("selected on", {"train": 0, "selected_on": found.images})
    assert "chose the rule" in warning


def test_nothing_is_fitted_by_a_mean_without_temperature(data: Path, runs: list[Path], tmp_path: Path) -> None:
    assert scored(combine(runs, tmp_path / "plain"), data, split="val")[0].kind == "test"
    warm = combine(runs, tmp_path / "warm", calibrate=True)
    found, (warning,) = scored(warm, data, split="val")
    assert found.kind == "selected on"
    assert "chose the temperature" in warning


def test_images_that_fitted_the_rule_are_not_evaluated_by_default(data: Path, runs: list[Path], tmp_path: Path) -> None:
    """They are those of another folder than the members': to these, all of it is new, but not to the ensemble."""
    other = write_images(tmp_path / "other", images=12, seed=5)
    model = combine(runs, tmp_path / "e", rule="greedy", data=other)
    assert scored(runs[0], other)[0].split == "all"
    found, warnings = scored(model, other)
    assert (found.split, found.kind, warnings) == ("test", "test", [])
    assert scored(model, other, split="val")[0].kind == "selected on"
    assert scored(model, data, split="val")[0].kind == "test"


def test_folds_together_have_seen_everything_and_each_alone_has_not(data: Path, tmp_path: Path) -> None:
    found = tl_kit.cross_validate(quick_config(data, tmp_path / "folds", keep_epoch="best"), folds=3)
    members = [Path(fold.checkpoint) for fold in found.folds]
    together = combine(members, tmp_path / "e")
    everything = scored(together, data, split="all")[0]
    assert sum(everything.seen.values()) == everything.images
    alone = scored(members[0], data, split="all")[0]
    assert alone.images - sum(alone.seen.values()) == found.folds[0].images["test"]


def test_a_student_knows_what_its_teacher_knows(data: Path, fitted: Path, tmp_path: Path) -> None:
    """It is trained on other images than the members, and selects nothing of its own."""
    other = write_images(tmp_path / "other", images=12, seed=5)
    taught = quick_config(other, tmp_path / "student", distill=DistillConfig(teacher=fitted), **ONCE)
    tl_kit.distill(taught, samples=20)
    plain = quick(other, tmp_path / "plain", **ONCE).checkpoint
    for split, kind in (("train", "trained on"), ("val", "selected on"), ("test", "test")):
        assert scored(tmp_path / "student", data, split=split)[0].kind == kind
        assert scored(Path(plain), data, split=split)[0].kind == "test"
    assert scored(tmp_path / "student", data)[0].split == "test"


def test_the_mark_of_a_student_names_what_chose_its_teacher(data: Path, fitted: Path, tmp_path: Path) -> None:
    taught = quick_config(data, tmp_path / "student", distill=DistillConfig(teacher=fitted), **ONCE)
    run = tl_kit.distill(taught, samples=20).run
    assert (run.kinds, run.chosen_by_val) == ({"val": "selected on", "test": "test"}, ("rule",))
    assert "these images chose the rule," in run.notes[0]


def test_a_soup_has_seen_what_its_ingredients_have_and_what_chose_it(
    data: Path, runs: list[Path], tmp_path: Path
) -> None:
    members = []
    for run in runs:
        copy = Path(shutil.copytree(run, tmp_path / run.name))
        content = json.loads((copy / "tlkit.json").read_text())
        content["weights"] |= {"sha256": "0" * 64, "loaded": 10}
        (copy / "tlkit.json").write_text(json.dumps(content))
        members.append(copy)
    soup = combine(members, tmp_path / "soup", rule="soup")
    (member,) = (soup / "members").iterdir()
    for model in (soup, member) if "soup" in member.name else (soup,):
        assert scored(model, data, split="val")[0].kind == "selected on"
        assert scored(model, data, split="train")[0].kind == "trained on"


def test_older_records_keep_working_and_what_they_do_not_say_is_said(
    data: Path, runs: list[Path], fitted: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(runs[0], tmp_path / "run"))
    change(run, "tlkit.json", selected=None)
    assert scored(run, data, split="val")[0].kind == "selected on"
    assert scored(run, data)[0].kind == "test"
    change(run, "tlkit.json", train=None, val=None)
    found, (warning,) = scored(run, data)
    assert found.kind == "unknown"
    assert f"no record of the images that {run} has seen" in warning
    old = Path(shutil.copytree(fitted, tmp_path / "old"))
    content = json.loads((old / "ensemble.json").read_text())
    del content["data"]
    (old / "ensemble.json").write_text(json.dumps(content))
    found, (warning,) = scored(old, data, split="val")
    assert found.kind == "unknown"
    assert f"the rule of {old}" in warning


def test_a_damaged_record_of_an_ensemble_is_named(data: Path, fitted: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(fitted, tmp_path / "broken"))
    change(broken, "ensemble.json", val="everything")
    with pytest.raises(CheckpointError, match=r"ensemble\.json: data\.val is not a list of digests"):
        tl_kit.load(broken)
