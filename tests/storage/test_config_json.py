"""Every field of a run's configuration comes back from JSON as it was."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tl_kit.config import AugmentConfig, CacheConfig, FinetuneConfig, HeadConfig, LoopConfig, RegularizationConfig
from tl_kit.storage.config_json import from_json, to_json

BASE = FinetuneConfig(model="resnet18", data=Path("imgs"))

CHANGED = [
    BASE,
    replace(BASE, out=Path("a/b"), cache=CacheConfig(directory=Path("c"), views=3, size_gb=0)),
    replace(BASE, lr="auto", epochs=3, batch_size=7, img_size=32, patience=2, plot=True, seed=9),
    replace(BASE, lr=1e-5, optimizer_options=("betas=0.9,0.99", "eps=1e-6"), schedule_options=()),
    replace(BASE, optimizer_options={"betas": (0.9, 0.99), "eps": 1e-6, "amsgrad": True, "other": None}),
    replace(BASE, augment=AugmentConfig(crop="none", crop_scale=(0.2, 0.9)), augment_options={"flip": 0.25}),
    replace(BASE, augment="strong", augment_options=("flip=0",)),
    replace(BASE, regularization=RegularizationConfig(dropout=0.5, ema=0.99, mixup=1, drop_path=None)),
    replace(BASE, loop=LoopConfig(stops_early=("step",), weight_decay=0.1), head=HeadConfig(strengths=(1.0,))),
    replace(BASE, balance="sampler", select="macro-f1", batchnorm="frozen"),
]


@pytest.mark.parametrize("config", CHANGED)
def test_it_comes_back_equal_and_of_the_same_types(config: FinetuneConfig) -> None:
    back = from_json(FinetuneConfig, json.loads(json.dumps(to_json(config), allow_nan=False)))
    assert back == config
    assert repr(back) == repr(config), "1 stays 1, and 1.0 stays 1.0"


def test_every_dataclass_below_it_is_covered() -> None:
    """Whatever a later version adds as a field must come back as well."""
    for entry in fields(FinetuneConfig):
        value = getattr(BASE, entry.name)
        assert getattr(from_json(FinetuneConfig, to_json(BASE)), entry.name) == value
    assert set(to_json(BASE)) == {entry.name for entry in fields(FinetuneConfig)}


def test_numbers_of_numpy_and_data_given_as_text_come_back_plain() -> None:
    given: Any = replace(BASE, epochs=np.int64(3), lr=np.float32(0.5), data="imgs")
    assert from_json(FinetuneConfig, to_json(given)) == replace(BASE, epochs=3, lr=0.5)


def test_what_an_older_version_recorded_and_this_one_has_no_more_is_left_out() -> None:
    content = to_json(BASE)
    content["loop"]["keeps_statistics"] = ["full", "lp-ft"]
    content["runtime"]["bf16_from"] = 1
    assert from_json(FinetuneConfig, content) == BASE


def test_what_an_older_version_had_not_takes_its_default() -> None:
    content = to_json(BASE)
    del content["save"], content["loop"]["clip_norm"]
    assert from_json(FinetuneConfig, content) == BASE


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bomb": 1}, "has no 'bomb'"),
        ({"epochs": "three"}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"plot": 1}, "plot"),
        ({"balance": "eval()"}, "balance"),
        ({"loop": []}, "loop"),
        ({"loop": {"stops_early": "all"}}, "stops_early"),
        ({"data": 5}, "data"),
        ({"augment": {"crop_scale": [1, 2, 3]}}, "augment"),
        ({"augment": {"__class__": "x"}}, "augment"),
    ],
)
def test_what_it_cannot_be_is_named(change: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_json(FinetuneConfig, {**to_json(BASE), **change})


@pytest.mark.parametrize("content", [None, [], "x", 3])
def test_no_object_is_refused(content: object) -> None:
    with pytest.raises(ValueError, match="is not an object"):
        from_json(FinetuneConfig, content)
