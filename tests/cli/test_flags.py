"""Every flag arrives, and every default is the one of ``tl_kit.config``."""

from __future__ import annotations

import os
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import tlkit
from tl_kit._version import __version__
from tl_kit.cli.commands.ensemble import ensemble as ensemble_command
from tl_kit.cli.commands.finetune import finetune as finetune_command
from tl_kit.cli.commands.plan import plan as plan_command
from tl_kit.config import (
    CropConfig,
    DataConfig,
    DecodeConfig,
    EnsembleConfig,
    FetchConfig,
    FinetuneConfig,
    ProcessConfig,
    RuntimeConfig,
)
from tl_kit.errors import TlKitError
from tl_kit.machine.process import share_the_cores


class SeenError(TlKitError):
    """Ends the command once the API has been called."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def record(*arguments: Any, reporter: object, **options: Any) -> None:
        seen.append((arguments, options))
        raise SeenError("enough")

    for name in ("finetune", "cross_validate", "finetune_members", "plan", "ensemble", "evaluate", "predict_stream"):
        monkeypatch.setattr(f"tl_kit.{name}", record)
    return seen


Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


def test_finetune_without_flags_takes_every_default(calls: Calls) -> None:
    tlkit("finetune", "resnet18", "--data", "imgs")
    assert calls == [((FinetuneConfig(model="resnet18", data=Path("imgs")),), {})]


def test_plan_without_flags_plans_finetune_without_flags(calls: Calls) -> None:
    tlkit("plan", "resnet18", "--data", "imgs")
    assert calls == [((FinetuneConfig(model="resnet18", data=Path("imgs")),), {})]


def test_plan_plans_what_finetune_would_do_with_the_same_flags(calls: Calls) -> None:
    shared = ("--policy=last:3", "--epochs=7", "--batch-size=5", "--lr=3e-4", "--optimizer=lion", "--schedule=wsd")
    shared += (
        "--layer-decay=0.8",
        "--balance=loss",
        "--select=nll",
        "--keep-epoch=last",
        "--augment=light",
        "--batchnorm=frozen",
    )
    shared += ("--weights=w.pth", "--img-size=96", "--seed=4", "--split-seed=9", "--cache-size=1", "--views=2")
    shared += ("--image-column=photo", "--label-column=breed", "--copy-size=1")
    shared += ("--runtime=plain", "--allow=split-leak", "--group-pattern=^[0-9]+", "--strict", "--max-pixels=1000000")
    shared += ("--opt=eps=1", "--schedule-opt=decay=0.1", "--warmup=2", "--weight-decay=0.1", "--clip-norm=2", "--l1=1")
    shared += ("--l2=1", "--l2-sp=1", "--dropout=0.1", "--drop-connect=0.1", "--drop-path=0.1", "--label-smoothing=0.1")
    shared += (
        "--mixup=1",
        "--cutmix=1",
        "--ema=0.9",
        "--swa",
        "--snapshots=2",
        "--late=2",
        "--aug=flip=0",
        "--crop-mode=squash",
    )
    shared += ("--compile=on", "--out=here", "--plot", "--on-nan=rollback", "--save-every=none", "--head-guard")
    shared += ("--no-refit", "--device=cpu", "--track=tensorboard", "--track-project=mine")
    shared += ("--crop-mode=squash",)
    for command in ("plan", "finetune"):
        tlkit(command, "resnet18", "--data", "imgs", *shared)
    assert calls[0] == calls[1]
    tested = {flag.partition("=")[0].lstrip("-").removeprefix("no-").replace("-", "_") for flag in shared}
    others = {"context", "model", "data", "folds", "members", "vary", "resume", "json", "debug", "config", "help_all"}
    others |= {"report"}  # a plan has none, and takes the same command
    assert tested | others == set(signature(plan_command).parameters) == set(signature(finetune_command).parameters)


@pytest.mark.parametrize(
    ("flag", "value", "field", "expected"),
    [
        ("--policy", "last:3", "policy", "last:3"),
        ("--epochs", "7", "epochs", 7),
        ("--batch-size", "5", "batch_size", 5),
        ("--lr", "3e-4", "lr", 3e-4),
        ("--optimizer", "lion", "optimizer", "lion"),
        ("--schedule", "wsd", "schedule", "wsd"),
        ("--balance", "sampler", "balance", "sampler"),
        ("--select", "macro-f1", "select", "macro-f1"),
        ("--keep-epoch", "best", "keep_epoch", "best"),
        ("--weights", "w.pth", "weights", "w.pth"),
        ("--img-size", "96", "img_size", 96),
        ("--snapshots", "3", "snapshots", 3),
        ("--late", "2", "late", 2),
        ("--seed", "4", "seed", 4),
        ("--split-seed", "9", "split", DataConfig(split_seed=9)),
        ("--out", "here", "out", Path("here")),
        ("--max-pixels", "99", "decode", DecodeConfig(max_pixels=99)),
        ("--group-pattern", "^a", "split", DataConfig(group_pattern="^a")),
        ("--image-column", "photo", "split", DataConfig(image_column="photo")),
        ("--label-column", "Breed", "split", DataConfig(label_column="Breed")),
        ("--allow", "split-leak", "allow", ("split-leak",)),
    ],
)
def test_each_flag_of_finetune_sets_its_field(
    calls: Calls, flag: str, value: str, field: str, expected: object
) -> None:
    tlkit("finetune", "resnet18", "--data", "imgs", flag, value)
    default = FinetuneConfig(model="resnet18", data=Path("imgs"))
    changed = {name: getattr(calls[0][0][0], name) for name in FinetuneConfig.__dataclass_fields__}
    assert changed.pop(field) == expected != getattr(default, field)
    assert all(value == getattr(default, name) for name, value in changed.items())


def test_strictness_and_the_largest_image_of_every_command_that_decodes(calls: Calls) -> None:
    flags, expected = ("--strict", "--max-pixels", 99), DecodeConfig(max_pixels=99)
    for command in (("finetune", "m", "--data", "d"), ("plan", "m", "--data", "d"), ("ensemble", "a", "b")):
        tlkit(*command, *flags)
    assert [(call[0][0].strict, call[0][0].decode) for call in calls] == [(True, expected)] * 3
    tlkit("evaluate", "a", "--data", "d", *flags)
    tlkit("predict", "a", "z.png", *flags[1:])
    assert [call[1].get("decode") for call in calls[3:]] == [expected] * 2
    assert calls[3][1]["strict"] is True


def test_folds_ask_for_cross_validation_of_the_same_run(calls: Calls) -> None:
    tlkit("finetune", "resnet18", "--data", "imgs", "--folds", "7", "--epochs", "3")
    assert calls == [((FinetuneConfig(model="resnet18", data=Path("imgs"), epochs=3),), {"folds": 7})]


def test_members_and_vary_ask_for_several_of_the_same_run(calls: Calls) -> None:
    command = ("finetune", "resnet18", "--data", "imgs", "--epochs", "3")
    for flags in (("--members", "7"), ("--vary", "folds"), ("--members", "2", "--vary", "policy")):
        tlkit(*command, *flags)
    config = FinetuneConfig(model="resnet18", data=Path("imgs"), epochs=3)
    expected = [{"members": 7, "vary": "seed"}, {"members": None, "vary": "folds"}, {"members": 2, "vary": "policy"}]
    assert calls == [((config,), options) for options in expected]


def test_ensemble_flags(calls: Calls) -> None:
    tlkit("ensemble", "a", "b")
    tlkit("ensemble", "a", "b", "--data", "imgs", "--out", "here")
    tlkit("ensemble", "a", "b", "--rule", "greedy", "--no-calibrate")
    members = (Path("a"), Path("b"))
    assert calls[0][0] == (EnsembleConfig(checkpoints=members),)
    assert calls[1][0] == (EnsembleConfig(checkpoints=members, data=Path("imgs"), out=Path("here")),)
    assert calls[2][0] == (EnsembleConfig(checkpoints=members, rule="greedy", calibrate=False),)


def test_an_ensemble_takes_no_flag_that_is_for_training() -> None:
    own = {"checkpoints", "data", "out", "rule", "calibrate", "crops", "scales", "mc_dropout", "strict"}
    own |= {"image_column", "label_column", "copy_size", "help_all"}
    own |= {"max_pixels", "device", "distill", "report", "json", "debug", "config", "track"}
    assert set(signature(ensemble_command).parameters) - {"context"} == own


def test_evaluate_flags(calls: Calls) -> None:
    tlkit("evaluate", "a", "--data", "imgs")
    tlkit("evaluate", "a", "--data", "imgs", "--split", "train")
    usual = {"crops": None, "mc_dropout": None, "strict": False, "decode": DecodeConfig(), "runtime": RuntimeConfig()}
    usual |= {"image_column": None, "label_column": None}
    assert calls[0] == ((Path("a"), Path("imgs")), {"split": None, **usual})
    assert calls[1] == ((Path("a"), Path("imgs")), {"split": "train", **usual})


def test_predict_paths_keep_their_order(calls: Calls) -> None:
    tlkit("predict", "a", "z.png", "b.png", "--top", "2")
    options = {"crops": None, "mc_dropout": None, "decode": DecodeConfig(), "runtime": RuntimeConfig()}
    assert calls[0] == ((Path("a"), ["z.png", "b.png"]), {**options, "fetch": FetchConfig(), "image_column": None})
    tlkit("predict", "a", "https://x.org/z.png", "--urls", "--allow-private")
    assert calls[1][1]["fetch"] == FetchConfig(urls=True, allow_private=True)


def test_passes_with_dropout_of_the_commands_that_predict(calls: Calls) -> None:
    tlkit("evaluate", "a", "--data", "imgs", "--mc-dropout", "7")
    tlkit("predict", "a", "z.png", "--mc-dropout", "7")
    tlkit("ensemble", "a", "b", "--mc-dropout", "7")
    assert [call[1].get("mc_dropout") or call[0][0].mc_dropout for call in calls] == [7] * 3


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--crops", "5"], CropConfig(crops=5)),
        (["--scales", "1,1.25"], CropConfig(scales=(1.0, 1.25))),
        (["--crops", "10", "--scales", "1.5"], CropConfig(crops=10, scales=(1.5,))),
    ],
)
def test_crops_and_scales_of_the_commands_that_predict(calls: Calls, flags: list[str], expected: CropConfig) -> None:
    tlkit("evaluate", "a", "--data", "imgs", *flags)
    tlkit("predict", "a", "z.png", *flags)
    tlkit("ensemble", "a", "b", *flags)
    assert [call[1].get("crops") or call[0][0].crops for call in calls] == [expected] * 3


def test_scales_that_are_no_numbers_are_refused_by_name(calls: Calls) -> None:
    done = tlkit("predict", "a", "z.png", "--scales", "1;1.2")
    assert (done.code, done.err) == (2, "error: --scales 1;1.2: must be numbers with commas between, such as 1,1.15\n")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": str(ProcessConfig.spin_count)}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_threads_spin_little_unless_the_user_says_how_long(
    given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is put back at the end
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    share_the_cores()
    found = {name: os.environ[name] for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY") if name in os.environ}
    assert found == expected


def test_version_and_help() -> None:
    assert tlkit("--version").out == f"tlkit {__version__}\n"
    for arguments in ([], ["-h"], ["--help"]):
        done = tlkit(*arguments)
        assert done.code == 0
        for command in ("finetune", "ensemble", "evaluate", "predict", "serve", "push", "models", "doctor", "demo"):
            assert f"\n  {command} " in done.out


@pytest.mark.parametrize(
    "command", ["finetune", "ensemble", "evaluate", "predict", "serve", "push", "models", "doctor", "demo"]
)
def test_every_command_has_help_and_debug(command: str) -> None:
    done = tlkit(command, "-h")
    assert done.code == 0
    assert "--debug" in done.out
    assert done.out == tlkit(command, "--help").out


def test_what_libraries_print_never_reaches_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    class Result:
        def to_dict(self) -> dict[str, object]:
            return {"images": 1}

    def noisy(*_: object, **__: object) -> Result:
        print("a library says hello")
        return Result()

    monkeypatch.setattr("tl_kit.evaluate", noisy)
    done = tlkit("evaluate", "a", "--data", "b", "--json")
    assert done.json == {"images": 1}
    assert "a library says hello" in done.err
