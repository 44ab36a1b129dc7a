"""A student learns from its teacher, under every policy, and is compared with it honestly."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

import tl_kit
from tests.cli.helpers import tlkit
from tests.ensembling.test_ensemble import reorder_classes
from tests.helpers import MODEL, NEARLY_SQUARE, UNGUARDED, Listener, quick, quick_config, write_images
from tests.killing import Copies, assert_the_same, killing
from tests.series.test_resume import train
from tl_kit import DistillConfig, EnsembleConfig, FinetuneConfig, HeadConfig, LoopConfig, RegularizationConfig, distill
from tl_kit.cli.show.distillation import _learned
from tl_kit.errors import CheckpointError, ConfigError, MemberError
from tl_kit.finetuning.batch_sources import PlainSource, TaughtSource
from tl_kit.finetuning.losses import build_loss
from tl_kit.finetuning.preparation import prepare
from tl_kit.finetuning.teacher import teach
from tl_kit.inference.held_out_heads import with_held_out_heads
from tl_kit.reporting import SILENT

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "data", images=15, size=NEARLY_SQUARE)


@pytest.fixture(scope="module")
def teacher(data: Path) -> Path:
    root = data.parent
    quick(data, root / "a")
    quick(data, root / "b", policy="head", epochs=None, seed=1)
    members = (root / "a", root / "b")
    tl_kit.ensemble(EnsembleConfig(checkpoints=members, rule="logit-mean", out=root / "teacher", bootstrap=50))
    return root / "teacher"


def config(data: Path, out: Path, teacher: Path, **options: Any) -> FinetuneConfig:
    chosen = {"temperature": options.pop("temperature", 2.0), "weight": options.pop("weight", 0.5)}
    return quick_config(data, out, distill=DistillConfig(teacher=teacher, **chosen), **options)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_batches_hold_the_labels_and_what_the_teacher_predicts(
    data: Path, teacher: Path, tmp_path: Path, temperature: float
) -> None:
    run = prepare(config(data, tmp_path / "run", teacher, temperature=temperature), SILENT)
    try:
        run = teach(run)
        samples = run.manifest.split("train")
        indices = np.array([3, 0, 17, 3 + len(samples), 5])  # image 3 a second time
        inputs, targets = TaughtSource(run, PlainSource(run)).batch(indices, 0)
        chosen = [samples[index % len(samples)] for index in indices]
        asked = with_held_out_heads(tl_kit.load(teacher))
        predicted = asked.predict([sample.path for sample in chosen])
        for row, sample, prediction in zip(targets, chosen, predicted, strict=True):
            assert row[0].tolist() == [float(label == sample.label) for label in range(3)]
            p = np.array([prediction.probabilities[name] for name in run.manifest.classes]) ** (1 / temperature)
            np.testing.assert_allclose(row[1], p / p.sum(), rtol=0, atol=1e-5)
        assert (len(inputs), targets.shape) == (5, (5, 2, 3))
    finally:
        run.cleanup.close()


def swapped(data: Path, out: Path) -> Path:
    """The same images, each class under the name of another."""
    for name, other in (("red", "green"), ("green", "blue"), ("blue", "red")):
        shutil.copytree(data / name, out / other)
    return out


def test_with_all_the_weight_on_it_a_wrong_teacher_is_believed(tmp_path: Path) -> None:
    """Validation, by which the best epoch is kept, has the labels that are to be learned."""
    true, fresh = write_images(tmp_path / "true", images=18), write_images(tmp_path / "fresh", images=8, seed=1)
    quick(swapped(true, tmp_path / "false"), tmp_path / "teacher", epochs=6)
    files = sorted(true.rglob("*.png"))
    taught = [p.label for p in tl_kit.load(tmp_path / "teacher").predict(files)]
    for weight, validation in ((0.0, fresh), (1.0, swapped(fresh, tmp_path / "false-fresh"))):
        data, out = tmp_path / f"data-{weight:g}", tmp_path / f"student-{weight:g}"
        shutil.copytree(true, data / "train")
        shutil.copytree(validation, data / "val")
        distill(config(data, out, tmp_path / "teacher", weight=weight, temperature=1.0, epochs=6))
        said = [p.label for p in tl_kit.load(out).predict(files)]
        as_taught = np.mean([a == b for a, b in zip(said, taught, strict=True)])
        right = np.mean([a == file.parent.name for a, file in zip(said, files, strict=True)])
        assert (as_taught if weight else right) > 0.9
        assert (right if weight else as_taught) < 0.1


def test_without_weight_on_the_teacher_it_is_the_usual_run(data: Path, teacher: Path, tmp_path: Path) -> None:
    usual = config(data, tmp_path / "usual", teacher, weight=0.0)
    tl_kit.finetune(replace(usual, distill=None))
    distill(replace(usual, out=tmp_path / "taught"))
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("usual", "taught"))
    for name, tensor in a.items():
        torch.testing.assert_close(tensor, b[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "head"},
        {"policy": "last:2"},
        {"policy": "gradual", "epochs": 3},
        {"policy": "lp-ft", "select": "nll", "epochs": 3, "head": HeadConfig(start_strength=1e-3)},
        {"policy": "full", "balance": "sampler"},
        {"policy": "auto", "balance": "loss", "regularization": RegularizationConfig(label_smoothing=0.1, ema=0.9)},
    ],
)
def test_every_policy_learns_from_it(data: Path, teacher: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """Other weights than with less of the teacher, and the head is not fitted in closed form."""
    weights = []
    for weight in (0.1, 0.9):
        result = distill(config(data, tmp_path / f"{weight:g}", teacher, weight=weight, guard=UNGUARDED, **options))
        assert result.run.epochs >= 1
        assert result.run.audit["ok"]
        weights.append(load_file(Path(result.checkpoint) / "model.safetensors"))
    assert any(not torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_the_loss_on_labels_keeps_its_smoothing(data: Path, teacher: Path, tmp_path: Path) -> None:
    smooth = RegularizationConfig(label_smoothing=0.2)
    run = prepare(config(data, tmp_path / "run", teacher, weight=0.25, regularization=smooth), SILENT)
    run.cleanup.close()
    logits, labels, soft = torch.randn(4, 3), torch.tensor([0, 2, 1, 1]), torch.rand(4, 3).softmax(1)
    targets = torch.stack([functional.one_hot(labels, 3).float(), soft], dim=1)
    hard = functional.cross_entropy(logits, labels, label_smoothing=0.2)
    divergence = (soft * (soft.log() - (logits / 2).log_softmax(1))).sum(1).mean()
    assert build_loss(run).objective(logits, targets).item() == pytest.approx(
        (0.75 * hard + 0.25 * 4 * divergence).item(), abs=1e-5
    )


def test_the_comparison_is_what_evaluate_says_of_each(data: Path, teacher: Path, tmp_path: Path) -> None:
    result = distill(config(data, tmp_path / "student", teacher))
    found = result.to_dict()["comparison"]
    student = tl_kit.evaluate(tmp_path / "student", data, split="test")
    whole = tl_kit.evaluate(teacher, data, split="test")
    members = sorted((teacher / "members").iterdir())
    on_val = [tl_kit.evaluate(path, data, split="val").metrics for path in members]
    best = min(range(2), key=lambda index: (-on_val[index]["accuracy"], on_val[index]["nll"]))
    alone = tl_kit.evaluate(members[best], data, split="test").metrics
    assert found["images"] == student.images == whole.images
    assert found["student"] == pytest.approx(student.metrics, abs=1e-6)
    assert found["teacher"] == pytest.approx(whole.metrics, abs=1e-6)
    assert found["best_member"] == pytest.approx(alone, abs=1e-6)
    assert Path(found["best_member_checkpoint"]) == members[best]
    for name, other in (("over_teacher", whole.metrics), ("over_best_member", alone)):
        for score in ("accuracy", "nll"):
            assert found[name][score] == pytest.approx(student.metrics[score] - other[score], abs=1e-6)
    files = [sample.path for sample in tl_kit.data.scan.scan(data).split("test")]
    labels = [[p.label for p in tl_kit.load(path).predict(files)] for path in (tmp_path / "student", teacher)]
    assert found["disagreement"] == pytest.approx(np.mean([a != b for a, b in zip(*labels, strict=True)]))
    assert (result.temperature, result.weight, result.status) == (2.0, 0.5, "finished")


def test_the_order_of_the_teacher_s_classes_changes_nothing(data: Path, teacher: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data.parent / "a", tmp_path / "shuffled"))
    reorder_classes(copy, [2, 0, 1])
    runs = [prepare(config(data, tmp_path / str(n), path), SILENT) for n, path in enumerate((data.parent / "a", copy))]
    found = [teach(run).taught for run in runs]
    for run in runs:
        run.cleanup.close()
    assert found[0] is not None
    assert found[1] is not None
    for digest, row in found[0].targets.items():
        torch.testing.assert_close(row, found[1].targets[digest], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": 0.0}, "temperature 0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"weight": 1.5}, r"weight 1\.5: must be from 0 to 1"),
        ({"regularization": RegularizationConfig(mixup=0.4)}, "mixed images"),
        (
            {"policy": "head", "optimizer": "lbfgs", "epochs": None, "loop": LoopConfig()},
            "--distill: the head that lbfgs",
        ),
    ],
)
def test_what_cannot_be_is_one_line(
    data: Path, teacher: Path, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        distill(config(data, tmp_path / "run", teacher, **options))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_teachers_that_are_none_or_know_other_classes_are_refused(data: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        distill(config(data, tmp_path / "run", tmp_path / "nowhere"))
    other = write_images(tmp_path / "other", ("red", "grey"), images=8)
    with pytest.raises(MemberError, match="grey"):
        distill(config(other, tmp_path / "run", teacher))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="names no teacher"):
        distill(FinetuneConfig(model=MODEL, data=data))
    with pytest.raises(ConfigError, match="--folds: a teacher has seen"):
        tl_kit.cross_validate(config(data, tmp_path / "run", teacher), folds=3)


def test_killed_and_taken_up_again_it_ends_the_same(data: Path, teacher: Path, tmp_path: Path) -> None:
    copies = Copies(tmp_path / "run")
    with killing(copies):
        train(data, copies.out, {"distill": DistillConfig(teacher=teacher)})
    whole = copies.out.rename(tmp_path / "whole")
    assert tl_kit.resume(copies.restore(4)) is not None
    assert_the_same(copies.out, whole)


def test_a_teacher_that_has_seen_the_test_images_is_not_compared(data: Path, tmp_path: Path) -> None:
    base = replace(config(data, tmp_path / "folds", tmp_path), distill=None, keep_epoch="best")
    folds = tl_kit.cross_validate(base, folds=3)
    members = tuple(Path(fold.checkpoint) for fold in folds.folds)
    tl_kit.ensemble(EnsembleConfig(checkpoints=members, out=tmp_path / "e", bootstrap=50))
    listener = Listener()
    result = distill(config(data, tmp_path / "student", tmp_path / "e"), reporter=listener)
    assert result.comparison is None
    assert any("the teacher has seen 9 of the 9 test images" in text for text in listener.messages)


def test_the_command_writes_the_student_into_the_ensemble(
    data: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student of one epoch."""
    monkeypatch.setattr(tl_kit, "distill", lambda asked, **more: distill(replace(asked, epochs=1), **more))
    members = (data.parent / "a", data.parent / "b")
    model = f"local-dir:{data.parent / 'a'}"
    done = tlkit("ensemble", *members, "--distill", model, "--out", tmp_path / "e")
    assert done.code == 0, done.err
    assert f"student: {tmp_path / 'e' / 'student'}\n" in done.out
    for line in ("The student against the teacher: ", "The student against the teacher's best member: "):
        assert line in done.out
    assert "Student and teacher disagree on " in done.out
    assert tlkit("predict", tmp_path / "e" / "student", next(data.rglob("*.png"))).code == 0
    assert tl_kit.load(tmp_path / "e" / "student").members[0].preprocessing.input_size == (3, 32, 32)
    found = tlkit("ensemble", *members, "--distill", model, "--out", tmp_path / "f", "--json").json
    assert found["checkpoint"] == str(tmp_path / "f")
    assert found["distillation"]["checkpoint"] == str(tmp_path / "f" / "student")
    assert found["distillation"]["comparison"]["images"] == found["images"]["test"]


@pytest.mark.parametrize(("model", "said"), [("resnet1", "resnet1"), ("test_vit", "weights")])
def test_a_student_unknown_or_without_weights_is_refused_before_anything_is_done(
    model: str, said: str, data: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = tlkit("ensemble", data.parent / "a", data.parent / "b", "--distill", model, "--out", tmp_path / "e")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err
    assert not (tmp_path / "e").exists()


def test_ctrl_c_leaves_the_ensemble_and_says_so(
    data: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tl_kit.distill", stopped)
    model = f"local-dir:{data.parent / 'a'}"
    done = tlkit(
        "ensemble", data.parent / "a", data.parent / "b", "--distill", model, "--out", tmp_path / "e", "--json"
    )
    assert (done.code, done.out) == (130, "")
    assert done.err.splitlines()[-1] == f"interrupted: the ensemble is in {tmp_path / 'e'}"
    assert tl_kit.load(tmp_path / "e").members


@pytest.mark.parametrize(
    ("alpha", "line"),
    [
        (None, "distilled with temperature 2, weight 0.9; policy full"),
        (1.0, "distilled with temperature 2, weight 0.9; policy full"),
        (0.25, "distilled with temperature 2, weight 0.9; policy full; averaged with the head, 75% of the weights"),
        (0.0, "Nothing of the teacher is in the student: on the validation images the head"),
    ],
)
def test_a_student_of_which_the_guard_kept_the_head_is_told(alpha: float | None, line: str, tmp_path: Path) -> None:
    run = Mock(guard=None if alpha is None else {"alpha": alpha}, policy="full")
    found = tl_kit.Distillation(run=run, teacher="e", temperature=2.0, weight=0.9, comparison=None)
    assert found.learned == (1.0 if alpha is None else alpha)
    assert _learned(found).startswith(line)
