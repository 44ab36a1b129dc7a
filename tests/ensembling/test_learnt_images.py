"""Members that trained on validation images too, in a second training: the first networks are scored on these."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tl_kit
from tests.helpers import quick_config
from tl_kit import DataConfig, EnsembleConfig
from tl_kit.finetuning.finetune import finetune_on
from tl_kit.finetuning.preparation import training_images
from tl_kit.finetuning.run import Settled
from tl_kit.fitting.refits import refit_images
from tl_kit.reporting import SILENT
from tl_kit.storage.checkpoint import read_meta

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Two networks that know all images of noise by heart, those of validation among them."""
    root = tmp_path_factory.mktemp("learnt")
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (root / "images" / label).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / label / f"{number}.png")
    found = []
    for seed in (0, 1):
        split = DataConfig(val_fraction=0.3, test_fraction=0.0)  # of 24 images, few are guessed right three times in 4
        options = quick_config(root / "images", root / f"first-{seed}", epochs=1, seed=seed, split=split)
        tl_kit.finetune(options)
        settled = Settled(first=options.out or root, record=read_meta(options.out or root))
        options = replace(options, out=root / f"again-{seed}", epochs=12, lr=0.01, augment="none")
        images = training_images(options, SILENT)
        finetune_on(refit_images(images), options, settled=settled)
        found.append(root / f"again-{seed}")
        paths = [sample.path for sample in images.split("val")]
        labels = [each.label for each in tl_kit.load(found[-1]).predict(paths)]
        assert np.mean([label == path.parent.name for label, path in zip(labels, paths, strict=True)]) > 0.9
    return tuple(found)


@pytest.mark.parametrize("rule", ["mean", "stack", "concat", "weighted", "auto"])
def test_no_rule_is_chosen_or_scored_on_images_that_a_member_has_learnt(
    rule: str, learnt: tuple[Path, ...], tmp_path: Path
) -> None:
    """Labels are drawn by lot: whoever is mostly right about validation images has seen them."""
    out = tmp_path / "out"
    result = tl_kit.ensemble(EnsembleConfig(checkpoints=learnt, rule=rule, out=out))
    assert result.receipt["ensemble"]["val"]["accuracy"] < 0.75
    assert tl_kit.evaluate(out, learnt[0].parent / "images", split="val").metrics["accuracy"] < 0.75
