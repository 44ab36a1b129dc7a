"""The demonstration: its images, its story on small settings with real weights, and what it says without weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import tl_kit
from tests.cli.helpers import tlkit
from tests.helpers import few_digits
from tl_kit import demonstration
from tl_kit.config import DemoConfig, DemoMember
from tl_kit.demonstration import demo, write_digits
from tl_kit.zoo.starter import starter_path

LITE0 = "tf_efficientnet_lite0"
SMALL = DemoConfig(
    side=32,
    members=(
        DemoMember(model=LITE0, policy="head", img_size=32),
        DemoMember(model=LITE0, policy="head", img_size=48),
    ),
)


def test_the_digits_are_scikit_learn_s(tmp_path: Path) -> None:
    assert write_digits(tmp_path / "digits", side=8) == 1797
    digits = load_digits()
    files = sorted((tmp_path / "digits").rglob("*.png"), key=lambda path: path.stem)
    assert [int(path.parent.name) for path in files] == digits.target.tolist()
    found = np.stack([np.asarray(Image.open(path)) for path in files])
    assert np.abs(found / 255 * 16 - digits.images).max() <= 0.5 * 16 / 255


def test_without_the_weights_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstration, "starter_path", lambda name: None)
    done = tlkit("demo", "--out", tmp_path / "demo")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert done.err.startswith("error: ")
    assert 'pip install "tl-kit[starter]"' in done.err
    assert not (tmp_path / "demo").exists()


@pytest.mark.real
@pytest.mark.skipif(starter_path(LITE0) is None, reason="the starter wheels are not installed")
def test_the_story_is_true_and_can_be_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_digits(monkeypatch, 200)
    run = tl_kit.demo
    monkeypatch.setattr(tl_kit, "demo", lambda asked, **more: run(replace(SMALL, out=asked.out), **more))
    done = tlkit("demo", "--out", tmp_path / "demo")
    assert done.code == 0, done.err
    folder = tmp_path / "demo" / "run-1"
    assert f"everything is in {folder}" in done.out
    scores: dict[str, float] = {}
    for checkpoint in (*(folder / "ckpts").iterdir(), folder / "ensemble"):
        scored = tlkit("evaluate", checkpoint, "--data", folder / "digits", "--json").json
        scores[checkpoint.name] = scored["metrics"]["accuracy"]
        assert f" {100 * scores[checkpoint.name]:.1f} %" in done.out
    page = SimpleNamespace(file=folder / "report.html")
    monkeypatch.setattr(demonstration, "report", lambda *_, **more: page)  # whose maps of heat take a third of the time
    again = demo(replace(SMALL, out=tmp_path / "demo"))
    assert Path(again.folder).name == "run-2"
    *members, ensemble = again.rows
    for row in again.rows:
        assert row.before < 0.3  # ten classes, a head that has learnt nothing
        assert row.after > 0.8
    assert {Path(row.checkpoint).name: row.after for row in again.rows} == scores, "the same from the same seed"
    gains = [pytest.approx(ensemble.after - member.after) for member in members]
    assert again.gain["accuracy"] in gains
