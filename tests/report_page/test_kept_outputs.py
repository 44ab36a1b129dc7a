"""Outputs that are kept: whose they are, and how many bytes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import tl_kit
from tl_kit.data.manifest import Sample
from tl_kit.inference import kept_outputs
from tl_kit.inference.kept_outputs import keep_outputs, known_outputs, outputs_key

CLASSES = ("a", "b")


def samples(*digests: str) -> list[Sample]:
    return [Sample(path=Path(digest), label=0, digest=digest, split="val") for digest in digests]


def stack(*values: float) -> np.ndarray:
    return np.array([[[value, 1 - value] for value in values]])


def test_an_image_keeps_its_first_outputs() -> None:
    with tl_kit.keeping_outputs():
        keep_outputs("k", samples("x", "y"), stack(0.1, 0.2))
        keep_outputs("k", samples("y", "z"), stack(0.9, 0.3))
        found = known_outputs("k", samples("z", "y", "?", "x"))
    assert {index: float(row[0, 0]) for index, row in found.items()} == {0: 0.3, 1: 0.2, 3: 0.1}
    assert known_outputs("k", samples("x")) == {}


def test_the_key_is_of_all_that_decides_outputs(run: Path, tmp_path: Path) -> None:
    assert outputs_key([run], classes=CLASSES, precisions=["fp32"]) is None
    folders = {name: tmp_path / name for name in ("same", "config", "ranges", "refit")}
    for folder in folders.values():
        shutil.copytree(run, folder)
    config = json.loads((run / "config.json").read_text())
    config["pretrained_cfg"] = {**config.get("pretrained_cfg", {}), "mean": [0.1, 0.2, 0.3]}
    (folders["config"] / "config.json").write_text(json.dumps(config))
    meta = json.loads((run / "tlkit.json").read_text())
    (folders["ranges"] / "tlkit.json").write_text(json.dumps({**meta, "ranges": {"uint16": [0, 1023]}}))
    refit = {**meta["data"], "refit": True}
    (folders["refit"] / "tlkit.json").write_text(json.dumps({**meta, "data": refit}))
    with tl_kit.keeping_outputs():
        keys = [
            outputs_key([run], classes=CLASSES, precisions=["fp32"]),
            outputs_key([run], classes=CLASSES[::-1], precisions=["fp32"]),
            outputs_key([run], classes=CLASSES, precisions=["bf16"]),
            outputs_key([run], classes=CLASSES, precisions=["fp32"], mc_dropout=2),
            *(outputs_key([folders[n]], classes=CLASSES, precisions=["fp32"]) for n in ("config", "ranges", "refit")),
        ]
        assert len(set(keys)) == len(keys)
        assert outputs_key([folders["same"]], classes=CLASSES, precisions=["fp32"]) == keys[0]


def test_what_was_kept_first_goes_where_there_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_outputs, "_MOST", 3 * (kept_outputs._PER_IMAGE + 16))
    with tl_kit.keeping_outputs():
        for key in ("one", "two"):
            keep_outputs(key, samples("x", "y"), stack(0.1, 0.2))
        keep_outputs("three", samples("x"), stack(0.5))
        keep_outputs("four", samples(*"abcd"), stack(0.1, 0.2, 0.3, 0.4))
        assert [len(known_outputs(key, samples("x", "y"))) for key in ("one", "two", "three")] == [0, 2, 1]
        assert not known_outputs("four", samples("a"))
