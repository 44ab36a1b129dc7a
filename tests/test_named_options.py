"""Options by name: flags and fields lead to the same place, with the same types and ranges as everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tl_kit.config import (
    AugmentConfig,
    DistillConfig,
    FinetuneConfig,
    GuardConfig,
    HeadConfig,
    RegularizationConfig,
    RuntimeConfig,
    SwaConfig,
)
from tl_kit.errors import ConfigError
from tl_kit.named_options import option_names, with_options

BASE = FinetuneConfig(model="resnet18", data=Path("imgs"))


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"epochs": 3}, {"epochs": 3}),
        ({"l2": 0.1}, {"regularization": RegularizationConfig(l2=0.1)}),
        ({"regularization": {"l2": 0.1}, "l1": 1}, {"regularization": RegularizationConfig(l1=1, l2=0.1)}),
        ({"regularization": RegularizationConfig(l2=0.1)}, {"regularization": RegularizationConfig(l2=0.1)}),
        ({"head-guard": False}, {"guard": GuardConfig(head_guard=False)}),
        ({"lr": "auto"}, {"lr": "auto"}),
        ({"lr": "1e-3"}, {"lr": 0.001}),
        ({"opt": "momentum=0.5"}, {"optimizer_options": ("momentum=0.5",)}),
        ({"optimizer_options": {"momentum": 0.5}}, {"optimizer_options": {"momentum": 0.5}}),
        ({"allow": ["split-leak"]}, {"allow": ("split-leak",)}),
        ({"augment": {"flip": 0.0}}, {"augment": AugmentConfig(flip=0.0)}),
        ({"augment": "strong"}, {"augment": "strong"}),
        ({"head": {"max-iter": 3}}, {"head": HeadConfig(max_iter=3)}),
        ({"distill": {"teacher": "t"}}, {"distill": DistillConfig(teacher=Path("t"))}),
        # two of the flags have the name of another field
        ({"runtime": "plain", "device": "cpu"}, {"runtime": RuntimeConfig(mode="plain", device="cpu")}),
        ({"runtime": {"mode": "plain"}}, {"runtime": RuntimeConfig(mode="plain")}),
        ({"swa": True}, {"regularization": RegularizationConfig(swa=True)}),
        ({"swa": SwaConfig(start=0.5)}, {"swa": SwaConfig(start=0.5)}),
    ],
)
def test_names_of_flags_and_fields(options: dict[str, Any], changed: dict[str, Any]) -> None:
    assert with_options(BASE, options, where="options") == replace(BASE, **changed)


def test_what_is_not_named_stays() -> None:
    base = replace(BASE, regularization=RegularizationConfig(l1=0.2), seed=7)
    assert with_options(base, {"l2": 0.1}, where="x").regularization == RegularizationConfig(l1=0.2, l2=0.1)
    assert with_options(base, {}, where="x") == base


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"l3": 1}, "run.yaml: l3: no such option"),
        ({"batchsize": 1}, "run.yaml: batchsize: no such option; did you mean batch_size?"),
        ({"head": {"maxiter": 3}}, "run.yaml: head: maxiter: no such option; did you mean max_iter?"),
        ({"epochs": "many"}, "run.yaml: epochs 'many': must be a whole number, or None"),
        ({"epochs": 2.5}, "run.yaml: epochs 2.5: must be a whole number, or None"),
        ({"epochs": True}, "run.yaml: epochs True: must be a whole number, or None"),
        ({"epochs": 0}, "run.yaml: --epochs 0: must be at least 1"),
        ({"lr": "fast"}, "run.yaml: lr fast: must be a positive number, or auto"),
        ({"batchnorm": "thaw"}, "run.yaml: batchnorm thaw: known are auto, train, frozen"),
        ({"opt": ["a=1"], "optimizer-options": ["a=2"]}, "run.yaml: optimizer-options: is given twice"),
        ({"distill": {"weight": 0.5}}, "run.yaml: DistillConfig.teacher is missing"),
        ({"head": {"max_iter": 0}}, "run.yaml: head.max_iter 0: must be above 0"),
    ],
)
def test_mistakes_name_the_place_and_the_option(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_options(BASE, options, where="run.yaml")
    assert str(caught.value) == text


def test_no_other_names_stand_for_two_fields() -> None:
    assert {name for name, paths in option_names(FinetuneConfig).items() if len(paths) > 1} == {"runtime", "swa"}
