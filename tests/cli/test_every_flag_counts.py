"""No flag of ``finetune`` is dead: each alters the weights, or what else it is there for."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path

import pytest
import torch

from tests.cli.helpers import Outcome, tlkit
from tests.helpers import NEARLY_SQUARE, write_images
from tl_kit.cli.commands.finetune import finetune

# A flag's parameter -> what is added to the command. Each of these must give other weights.
OTHER_WEIGHTS: dict[str, tuple[object, ...]] = {
    "policy": ("--policy", "full"),
    "epochs": ("--epochs", 1),
    "batch_size": ("--batch-size", 6),
    "lr": ("--lr", 0.2),
    "optimizer": ("--optimizer", "adamw"),
    "opt": ("--opt", "momentum=0.5"),
    "schedule": ("--schedule", "linear"),
    "schedule_opt": ("--schedule-opt", "floor=0.5"),
    "warmup": ("--warmup", 1.5),
    "weight_decay": ("--weight-decay", 0.5),
    "clip_norm": ("--clip-norm", 0.01),
    "layer_decay": ("--layer-decay", 0.5),
    "l1": ("--l1", 0.01),
    "l2": ("--l2", 0.1),
    "l2_sp": ("--l2-sp", 0.1),
    "dropout": ("--dropout", 0.5),
    "drop_connect": ("--drop-connect", 0.5),
    "drop_path": ("--drop-path", 0.5),
    "label_smoothing": ("--label-smoothing", 0.2),
    "mixup": ("--mixup", 0.5),
    "cutmix": ("--cutmix", 1.0),
    "balance": ("--balance", "sampler"),
    "ema": ("--ema", 0.9),
    "swa": ("--swa",),
    "snapshots": ("--snapshots", 2),
    "crop_mode": ("--crop-mode", "squash"),
    "batchnorm": ("--batchnorm", "frozen"),
    "augment": ("--augment", "strong"),
    "aug": ("--aug", "flip=0"),
    "weights": ("--weights", "none"),
    "img_size": ("--img-size", 48),
    "seed": ("--seed", 1),
    "split_seed": ("--split-seed", 1),
    "group_pattern": ("--group-pattern", "-([0-9]+)"),
    "views": ("--views", 1),
    "cache_size": ("--cache-size", 0),  # no views of the trunk's outputs: new ones every epoch
    "runtime": ("--runtime", "plain"),
    "head_guard": ("--head-guard",),
}
# Tested below: it gives other weights where the figures of validation disagree.
BY_SCORES = {"select", "keep_epoch"}
# Tested below, or in other files: they change where and how something is shown, or what stops, and not the weights.
OTHER_EFFECTS = {
    "on_nan",
    "model",
    "data",
    "out",
    "json",
    "debug",
    "plot",
    "compile",
    "folds",
    "late",
    "members",
    "vary",
    "allow",
    "strict",
    "max_pixels",
    "image_column",
    "label_column",
    "copy_size",
    "save_every",
    "resume",
    "refit",
    "device",
    "config",
    "track",
    "track_project",
    "report",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("flags") / "images", size=NEARLY_SQUARE)


@pytest.fixture(scope="module")
def pretrained(data: Path) -> Path:
    """Weights to start from, so that "pretrained" means something without a download."""
    out = data.parent / "pretrained"
    done = tlkit("finetune", "test_resnet", "--data", data, "--weights", "none", "--policy", "full", *SHORT, out)
    assert done.code == 0, done.err
    return out


SHORT = ("--img-size", 32, "--epochs", 2, "--batch-size", 8, "--out")


def run(data: Path, pretrained: Path, out: Path, *flags: object) -> Outcome:
    """A short run of the last two groups; later flags win over earlier ones.

    Without the guard: where validation takes the fitted head, nothing of training counts.
    """
    command = ("finetune", "test_resnet", "--data", data, "--weights", pretrained, "--policy", "last:2")
    command += ("--no-head-guard",)
    return tlkit(*command, *SHORT, out, *flags)


def weights(out: Path) -> str:
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def usual(data: Path, pretrained: Path) -> str:
    out = data.parent / "usual"
    assert run(data, pretrained, out).code == 0
    return weights(out)


def test_every_flag_is_here() -> None:
    flags = set(inspect.signature(finetune).parameters) - {"context", "help_all"}  # typer's own, and a help page
    assert flags == set(OTHER_WEIGHTS) | BY_SCORES | OTHER_EFFECTS


def test_without_a_flag_nothing_changes(data: Path, pretrained: Path, usual: str, tmp_path: Path) -> None:
    assert run(data, pretrained, tmp_path / "again").code == 0
    assert weights(tmp_path / "again") == usual


@pytest.mark.parametrize("name", OTHER_WEIGHTS)
def test_the_flag_alters_the_weights(name: str, data: Path, pretrained: Path, usual: str, tmp_path: Path) -> None:
    done = run(data, pretrained, tmp_path / "run", *OTHER_WEIGHTS[name])
    assert done.code == 0, done.err
    assert weights(tmp_path / "run") != usual


@pytest.mark.parametrize(
    ("flag", "epoch"),
    [
        ("--select=accuracy", 1),
        ("--select=balanced-accuracy", 2),
        ("--select=macro-f1", 2),
        ("--select=nll", 2),
        ("--keep-epoch=best", 1),
        ("--keep-epoch=last", 2),
        ("--keep-epoch=auto", 2),
    ],
)
def test_the_epoch_that_is_kept_alters_the_weights_where_the_figures_disagree(
    flag: str, epoch: int, data: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first epoch is the more accurate, the second is better by all else."""
    first = {"accuracy": 0.9, "balanced_accuracy": 0.5, "macro_f1": 0.5, "nll": 0.9}
    scores = [first, {"accuracy": 0.8, "balanced_accuracy": 0.6, "macro_f1": 0.6, "nll": 0.8}] * 2
    monkeypatch.setattr("tl_kit.finetuning.batch_sources._scores", lambda *_: scores.pop(0))
    assert run(data, pretrained, tmp_path / "first", "--keep-epoch", "best").code == 0
    assert run(data, pretrained, tmp_path / "run", flag).code == 0
    record = json.loads((tmp_path / "run" / "tlkit.json").read_text())
    assert record["best_epoch"] == epoch
    assert ("epoch" in record["chosen_by_val"]) == (flag not in ("--keep-epoch=last", "--keep-epoch=auto"))
    assert (weights(tmp_path / "run") != weights(tmp_path / "first")) == (epoch == 2)


@pytest.fixture
def head(data: Path, pretrained: Path) -> tuple[object, ...]:
    return ("finetune", "test_resnet", "--data", data, "--weights", pretrained, "--img-size", 32, "--policy", "head")


@pytest.mark.parametrize("flags", [("--dropout", 0.5), ("--drop-connect", 0.5), ("--l1", 0.1), ("--mixup", 1.0)])
def test_a_regularizer_alters_a_head_too(head: tuple[object, ...], flags: tuple[object, ...], tmp_path: Path) -> None:
    usual = ("--epochs", 3, "--batch-size", 8)
    for name, more in (("without", ()), ("with", flags)):
        done = tlkit(*head, *usual, *more, "--out", tmp_path / name)
        assert done.code == 0, done.err
    assert weights(tmp_path / "with") != weights(tmp_path / "without")


def test_newton_and_lbfgs_reach_the_same_head(head: tuple[object, ...], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    found = []
    for name in ("lbfgs", "newton"):
        options = ("--optimizer", name, "--opt", "C=0.05", "--opt", "max_iter=2000")
        done = tlkit(*head, *options, "--out", tmp_path / name)
        assert done.code == 0, done.err
        meta = json.loads((tmp_path / name / "tlkit.json").read_text())
        assert meta["settings"]["optimizer"] == name
        assert meta["settings"]["C"] == 0.05
        found.append(load_file(tmp_path / name / "model.safetensors")["fc.weight"])
    torch.testing.assert_close(found[0], found[1], rtol=0.02, atol=0.02)


def test_the_strength_of_a_head_alters_it(head: tuple[object, ...], tmp_path: Path) -> None:
    for strength in (0.01, 1.0):
        assert tlkit(*head, "--opt", f"C={strength}", "--out", tmp_path / str(strength)).code == 0
    assert weights(tmp_path / "0.01") != weights(tmp_path / "1.0")


def test_plot_draws_the_curves(data: Path, pretrained: Path, usual: str, tmp_path: Path) -> None:
    assert run(data, pretrained, tmp_path / "run", "--plot").code == 0
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert weights(tmp_path / "run") == usual


def test_folds_make_another_layout_of_folders(data: Path, pretrained: Path, tmp_path: Path) -> None:
    done = run(data, pretrained, tmp_path / "run", "--folds", 2)
    assert done.code == 0, done.err
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert weights(tmp_path / "run" / "fold-1") != weights(tmp_path / "run" / "fold-2")


def test_members_make_another_layout_of_folders_and_vary_says_in_what_they_differ(
    data: Path, pretrained: Path, usual: str, tmp_path: Path
) -> None:
    for vary in ("seed", "bootstrap"):
        done = run(data, pretrained, tmp_path / vary, "--members", 2, "--vary", vary)
        assert done.code == 0, done.err
        assert not (tmp_path / vary / "model.safetensors").exists()
    assert weights(tmp_path / "seed" / "member-1") == usual
    others = [("seed", 2), ("bootstrap", 1), ("bootstrap", 2)]
    assert len({usual, *(weights(tmp_path / vary / f"member-{number}") for vary, number in others)}) == 4


def test_late_keeps_the_last_epochs_beside_the_same_weights(
    data: Path, pretrained: Path, usual: str, tmp_path: Path
) -> None:
    assert run(data, pretrained, tmp_path / "run", "--late", 2).code == 0
    assert weights(tmp_path / "run") == usual
    assert {weights(tmp_path / "run" / f"epoch-{number}") for number in (1, 2)} > {usual}


def test_compile_on_compiles_and_off_does_not(
    data: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(torch, "compile", lambda module, **options: seen.append(options) or module)
    assert run(data, pretrained, tmp_path / "off", "--compile", "off").code == 0
    assert seen == []
    assert run(data, pretrained, tmp_path / "on", "--compile", "on").code == 0
    assert seen == [{"backend": "inductor"}]


def test_a_range_test_gives_the_run_that_its_rate_gives(
    data: Path, pretrained: Path, usual: str, tmp_path: Path
) -> None:
    done = run(data, pretrained, tmp_path / "auto", "--lr", "auto")
    assert done.code == 0, done.err
    assert "learning rate" in done.err
    rate = json.loads((tmp_path / "auto" / "tlkit.json").read_text())["settings"]["lr"]
    assert run(data, pretrained, tmp_path / "given", "--lr", repr(rate)).code == 0
    assert weights(tmp_path / "auto") == weights(tmp_path / "given") != usual


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--optimizer", "momentun"), "did you mean 'momentum'?"),
        (("--schedule", "cosin"), "did you mean 'cosine'?"),
        (("--opt", "momentun=0.5"), "did you mean 'momentum'?"),
        (("--optimizer", "sgd", "--opt", "momentum=0.5"), "'sgd' has no options"),
        (("--schedule-opt", "gamma=0.5"), "schedule 'cosine' has no option 'gamma'"),
        (("--aug", "flipp=0.5"), "did you mean 'flip'?"),
        (("--aug", "flip=2"), "from 0 to 1"),
        (("--augment", "stron"), "known are auto, none, light, standard, strong"),
        (("--lr", "fast"), "--lr fast: must be a positive number, or auto"),
        (("--lr", "-1"), "--lr -1.0"),
        (("--warmup", "-1"), "--warmup"),
        (("--warmup", "nan"), "--warmup nan"),
        (("--layer-decay", 1.5), "--layer-decay 1.5"),
        (("--l1", -1), "--l1 -1.0"),
        (("--dropout", 1), "--dropout 1.0: must be at least 0 and below 1"),
        (("--ema", 1), "--ema 1.0"),
        (("--swa", "--ema", 0.9), "--swa: --ema averages the weights already"),
        (("--late", 3), "--late 3: the run has 2 epochs"),
        (("--batch-size", 1, "--mixup", 0.2), "--mixup, --cutmix: a batch of one image"),
        (("--snapshots", 2, "--schedule", "linear"), "--schedule linear has none"),
        (("--snapshots", 2, "--schedule-opt", "cycles=3"), "--schedule-opt"),
        (("--members", 2, "--folds", 2), "--folds: scores one model on every image"),
        (("--vary", "model"), "--vary model: give two names or more"),
        (("--l2-sp", 0.1, "--weights", "none"), "--l2-sp"),
        (("--optimizer", "lbfgs"), "--optimizer lbfgs: only fits a head"),
    ],
)
def test_what_cannot_be_is_one_line(
    flags: tuple[object, ...], message: str, data: Path, pretrained: Path, tmp_path: Path
) -> None:
    done = run(data, pretrained, tmp_path / "run", *flags)
    assert done.code == 2
    assert message in done.err
    assert done.err.strip().splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--augment", "strong"), "--augment: the head"),
        (("--aug", "flip=0.1"), "--augment: the head"),
        (("--views", 2), "--views: the head"),
        (("--drop-path", 0.1), "--drop-path: no residual branch"),
        (("--optimizer", "newton", "--lr", 0.1), "--lr: the head that newton fits in closed form has none"),
        (("--optimizer", "lbfgs", "--dropout", 0.1), "--dropout: the head that lbfgs fits"),
        (("--plot",), "--plot: a head fitted in closed form"),
        (("--optimizer", "lbfgs", "--swa"), "--swa: the head that lbfgs fits in closed form has none"),
        (("--optimizer", "lbfgs", "--late", 2), "--late: the head that lbfgs fits"),
        (("--members", 2), "--vary seed: a head that is fitted in closed form is the same for every seed"),
        (("--select", "macro-f1"), "--select macro-f1: a head fitted in closed form"),
        (("--keep-epoch", "last"), "--keep-epoch last: a head fitted in closed form"),
        (("--opt", "momentum=0.9"), "has no option 'momentum'"),
    ],
)
def test_what_a_head_does_not_have_is_not_ignored(
    flags: tuple[object, ...], message: str, head: tuple[object, ...], tmp_path: Path
) -> None:
    done = tlkit(*head, *flags, "--out", tmp_path / "run")
    assert done.code == 2
    assert message in done.err


def test_a_model_without_stochastic_depth_says_so(data: Path, tmp_path: Path) -> None:
    command = ("finetune", "vgg11", "--data", data, "--weights", "none", "--policy", "full", "--out", tmp_path / "run")
    done = tlkit(*command, "--drop-path", 0.1)
    assert done.code == 2
    assert "--drop-path 0.1: vgg11 has none" in done.err
