"""Configurations and arguments with NumPy's, torch's and wrong values: plain before any work, or a clear error."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

import tl_kit
from tests.helpers import quick_config, write_images
from tl_kit import config
from tl_kit.config import DataConfig, FinetuneConfig, HeadConfig, LoopConfig
from tl_kit.errors import ConfigError
from tl_kit.finetuning.checks import check
from tl_kit.flags import fields_of
from tl_kit.images.crops import check_crops
from tl_kit.inference.predictor import check_passes
from tl_kit.number_ranges import OWN_CHECK, check_numbers
from tl_kit.plain_values import plain, plain_value
from tl_kit.storage import feature_cache
from tl_kit.storage.config_json import to_json

NEEDED: dict[str, dict[str, Any]] = {
    "EvaluateConfig": {"checkpoint": Path("a"), "data": Path("imgs")},
    "ExamineConfig": {"data": Path("imgs")},
    "PredictConfig": {"checkpoint": Path("a"), "images": ("b.png",)},
    "FinetuneConfig": {"model": "resnet18", "data": Path("imgs")},
    "FitConfig": {"data": Path("imgs")},
    "EnsembleConfig": {"checkpoints": (Path("a"), Path("b"))},
    "DistillConfig": {"teacher": Path("a")},
    "ExportConfig": {"checkpoint": Path("a")},
    "ServeConfig": {"checkpoint": Path("a")},
    "ReportConfig": {"result": Path("a")},
    "PushConfig": {"checkpoint": Path("a"), "repository": "someone/fruit"},
    "DemoMember": {"model": "resnet18", "policy": "full", "img_size": 32},
}
CONFIGS = {
    name: getattr(config, name)(**NEEDED.get(name, {}))
    for name in config.__all__
    if is_dataclass(getattr(config, name))
}
FIELDS = [(name, entry.name) for name, made in CONFIGS.items() for entry in fields(made)]


def values_for(hint: Any) -> list[Any]:
    """A value of each kind that a hint names."""
    text = (
        getattr(hint, "__name__", "")
        if isinstance(hint, type) and not get_args(hint)
        else str(hint).replace("Mapping[str, object]", "")
    )
    kinds: dict[str, Any] = {"int": 3, "float": 0.5, "bool": True, "str": "a", "Path": Path("a")}
    found = [value for kind, value in kinds.items() if kind in re.findall(r"\w+", text)]
    found += re.findall(r"Literal\['(\w+)'", text)
    return [(value,) for value in found] if "tuple" in text else found


def foreign(value: Any) -> Iterator[Any]:
    """What a user may have in hand instead of a plain value."""
    if isinstance(value, bool):
        yield from (np.bool_(value), np.array(value), torch.tensor(value))
    elif isinstance(value, int):
        yield from (np.int64(value), np.int32(value), np.uint8(value % 256), np.array(value), torch.tensor(value))
    elif isinstance(value, float):
        yield from (np.float64(value), np.array(value), torch.tensor(value, dtype=torch.float64), np.longdouble(value))
    elif isinstance(value, Path):
        yield from (str(value), np.str_(value))
    elif isinstance(value, str):
        yield np.str_(value)
    elif isinstance(value, tuple) and value:
        yield list(value)
        yield tuple(next(foreign(item), item) for item in value)
        if all(isinstance(item, int | float) for item in value):
            yield np.array(value)
            yield torch.tensor(value, dtype=torch.float64)


def is_plain(value: Any) -> bool:
    if is_dataclass(value):
        return all(is_plain(getattr(value, entry.name)) for entry in fields(value))
    if isinstance(value, Mapping):
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    if isinstance(value, tuple):
        return type(value) is tuple and all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str) or isinstance(value, Path)


@pytest.mark.parametrize("name", CONFIGS)
def test_defaults_are_plain_and_in_range(name: str) -> None:
    found = plain(CONFIGS[name])
    assert found == CONFIGS[name]
    assert is_plain(found)
    check_numbers(found)


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_field_takes_foreign_numbers_texts_and_paths(name: str, field: str) -> None:
    made = CONFIGS[name]
    default = getattr(made, field)
    tried = 0
    for value in [default] if default not in (None, ()) else values_for(get_type_hints(type(made))[field]):
        for given in foreign(value):
            if isinstance(given, np.uint8) and given != value:
                continue
            found = getattr(plain(replace(made, **{field: given})), field)
            assert is_plain(found), (given, found)
            assert found == value, (given, found)
            tried += 1
    assert tried or is_dataclass(default) or isinstance(default, Mapping) or field in ("distill", "crops", "vary")


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_field_refuses_what_it_cannot_hold_and_names_itself(name: str, field: str) -> None:
    for wrong in (object(), b"a", 1j, {1: 2}, [object()], np.array([[1, 2]]), np.datetime64("2020-01-01")):
        with pytest.raises(ConfigError, match=rf"{name}\.{field} .*: must be ") as caught:
            plain(replace(CONFIGS[name], **{field: wrong}))
        assert "\n" not in str(caught.value)


def numbers() -> Iterator[tuple[str, str]]:
    for name, field in FIELDS:
        default, hint = getattr(CONFIGS[name], field), str(get_type_hints(type(CONFIGS[name]))[field])
        first = default[0] if isinstance(default, tuple) and default else default
        number = isinstance(first, int | float) and not isinstance(first, bool)
        if number or (default is None and ("int" in hint or "float" in hint)):
            yield name, field


CHECKS: dict[str, Any] = {
    "FinetuneConfig": check,
    "CropConfig": check_crops,
    **dict.fromkeys(
        ("EnsembleConfig", "EvaluateConfig", "PredictConfig", "ServeConfig"),
        lambda given: check_passes(given.mc_dropout),
    ),
}


def refused(given: Any, field: str) -> None:
    """What a command does before any work."""
    found = plain(given)
    name = type(given).__name__
    if name == "FinetuneConfig" or any(
        OWN_CHECK in each.marks for each in fields_of(type(given)) if each.name == field
    ):
        CHECKS[name](found)
    check_numbers(found)


@pytest.mark.parametrize(("name", "field"), list(numbers()))
def test_every_number_is_finite_not_negative_and_no_other_kind(name: str, field: str) -> None:
    made = CONFIGS[name]
    default = getattr(made, field)
    for wrong in (float("nan"), float("inf"), float("-inf"), -1, -0.5, 2**70, True, "3"):
        value = tuple(wrong for _ in default) if isinstance(default, tuple) else wrong
        if isinstance(wrong, str) and str in get_args(get_type_hints(type(made))[field]):
            continue  # a text with a unit, such as "10m", which its own function reads
        with pytest.raises(ConfigError) as caught:
            refused(replace(made, **{field: value}), field)
        shown = next(each.shown for each in fields_of(type(made)) if each.name == field)
        assert field in str(caught.value) or shown in str(caught.value), wrong


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 2.5}, "FinetuneConfig.epochs 2.5: must be a whole number, or None"),
        ({"epochs": np.float64(3)}, "FinetuneConfig.epochs 3.0: must be a whole number"),
        ({"seed": True}, "FinetuneConfig.seed True: must be a whole number"),
        ({"plot": 1}, "FinetuneConfig.plot 1: must be True or False"),
        ({"lr": "0.1"}, "FinetuneConfig.lr '0.1': must be a number, or auto, or None"),
        ({"balance": "sometimes"}, "--balance sometimes: known are auto, none, sampler, loss"),
        ({"allow": "split-leak"}, "FinetuneConfig.allow 'split-leak': must be a tuple, each a text"),
        ({"head": {"max_iter": 3}}, "FinetuneConfig.head {'max_iter': 3}: must be a HeadConfig"),
        ({"head": HeadConfig(max_iter=0.5)}, "HeadConfig.max_iter 0.5: must be a whole number"),
        ({"optimizer_options": {3: 1}}, "FinetuneConfig.optimizer_options"),
    ],
)
def test_messages(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plain(replace(CONFIGS["FinetuneConfig"], **change))
    assert says in str(caught.value)


def test_mappings_of_options_become_plain_too() -> None:
    given = {"betas": np.array([0.9, 0.99]), np.str_("eps"): np.float32(0.5), "amsgrad": np.bool_(True), "n": [1, 2]}
    found = plain(replace(CONFIGS["FinetuneConfig"], optimizer_options=given)).optimizer_options
    assert found == {"betas": (0.9, 0.99), "eps": 0.5, "amsgrad": True, "n": (1, 2)}
    assert is_plain(found)


def test_fractions_are_numbers_and_whole_numbers_stay_whole() -> None:
    found = plain(LoopConfig(clip_norm=Fraction(1, 2), warmup_epochs=1))
    assert repr(found.clip_norm) == "0.5"
    assert repr(found.warmup_epochs) == "1"


@pytest.mark.parametrize("given", ["~/imgs", Path("~/imgs")])
def test_a_path_in_the_home_folder_is_found_there(given: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    found = plain(FinetuneConfig(model="m", data=given, out=given))
    assert (found.data, found.out) == (tmp_path / "imgs", tmp_path / "imgs")
    assert Path(plain_value(str | Path, given, "images")) == tmp_path / "imgs"
    assert plain_value(str | Path, "~x/imgs", "images") == "~x/imgs"
    assert plain_value(str | Path, "./~/imgs", "images") == "./~/imgs"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("plain") / "images")


FOREIGN: dict[str, Any] = {
    "epochs": np.int64(1),
    "batch_size": np.int32(8),
    "lr": np.float32(0.01),
    "seed": np.uint8(3),
    "img_size": torch.tensor(32),
    "optimizer": np.str_("adamw"),
    "optimizer_options": {"eps": np.float64(1e-6)},
    "split": DataConfig(split_seed=np.array(1)),
    "plot": np.bool_(False),
}


def test_a_run_and_what_follows_it_take_foreign_values(data: Path, tmp_path: Path) -> None:
    given: Any = quick_config(data, tmp_path / "run", **FOREIGN)
    given = replace(given, data=str(data), out=np.str_(tmp_path / "run"))
    run = tl_kit.finetune(given)
    assert json.loads((Path(run.checkpoint) / "tlkit.json").read_text())["config"] == to_json(plain(given))
    passes: Any = np.int64(0)
    assert tl_kit.evaluate(np.str_(run.checkpoint), str(data), mc_dropout=passes, strict=np.bool_(False)).images > 0
    assert tl_kit.load(np.str_(run.checkpoint), mc_dropout=passes).mc_dropout == 0
    assert tl_kit.predict(run.checkpoint, np.str_(next(data.rglob("*.png"))), mc_dropout=passes)[0].label


def test_nothing_is_read_before_a_wrong_value_is_refused(tmp_path: Path) -> None:
    """The data is not even there."""
    wrong: Any = replace(quick_config(tmp_path / "none", tmp_path / "run"), epochs="three")
    for command in (tl_kit.finetune, tl_kit.plan, tl_kit.cross_validate, tl_kit.finetune_members, tl_kit.distill):
        with pytest.raises(ConfigError, match=r"FinetuneConfig\.epochs 'three'"):
            command(wrong)
    odd: Any = "x"
    for call in (
        lambda: tl_kit.evaluate("a", "b", mc_dropout=odd),
        lambda: tl_kit.load("a", mc_dropout=odd),
        lambda: tl_kit.predict("a", "b", mc_dropout=odd),
        lambda: tl_kit.doctor("a", split=odd),
        lambda: tl_kit.resume(3),
        lambda: tl_kit.models(3),
        lambda: tl_kit.distill(quick_config(tmp_path, tmp_path), samples=odd),
        lambda: tl_kit.cross_validate(quick_config(tmp_path, tmp_path), folds=odd),
        lambda: feature_cache.cache_report(3),
    ):
        with pytest.raises(ConfigError, match="must be "):
            call()
    assert not (tmp_path / "run").exists()


def test_all_public_functions_do_it() -> None:
    functions = [getattr(tl_kit, name) for name in tl_kit.__all__ if inspect.isfunction(getattr(tl_kit, name))]
    functions += [feature_cache.cache_report, feature_cache.clear_cache]
    assert len(functions) > 10
    for function in functions:
        assert getattr(function, "takes_plain_values", False), function.__name__
        get_type_hints(inspect.unwrap(function))
