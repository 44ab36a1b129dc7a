"""A saved or pickled ``ImageClassifier``: it predicts the same, and knows which images have taught it."""

from __future__ import annotations

import copy
import json
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tl_kit
from tests.sklearn.helpers import classifier
from tests.torture.processes import NO_FORKS, Forked, script
from tl_kit.errors import CheckpointError, MemberError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_saved_model_predicts_the_same(paths: list[Path], labels: list[str], tmp_path: Path) -> None:
    model = classifier().fit(paths, labels)
    predictor = tl_kit.load(model.save(tmp_path / "saved"))
    rows = [[p.probabilities[name] for name in model.classes_] for p in predictor.predict(paths)]
    assert np.array_equal(model.predict_proba(paths), rows)
    record = (tmp_path / "saved" / "tlkit.json").read_text()
    assert json.loads(record)["config"]["model"]
    assert tempfile.gettempdir() not in record, "a folder that is gone"
    assert tl_kit.evaluate(tmp_path / "saved", paths[0].parents[1]).images > 0
    with pytest.raises(CheckpointError, match="is not an empty folder"):
        model.save(tmp_path / "saved")


def test_pickles_and_copies_outlive_the_run(paths: list[Path], labels: list[str], tmp_path: Path) -> None:
    model = classifier().fit(paths, labels)
    expected = model.predict_proba(paths)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert np.array_equal(other.predict_proba(paths), expected)
        assert other.get_params() == model.get_params()
    np.save(tmp_path / "expected.npy", expected)
    (tmp_path / "paths.txt").write_text("\n".join(map(str, paths)))
    if NO_FORKS:
        return
    code = (
        "import numpy, pathlib, pickle, sys, torch\ntorch.set_num_threads(1)\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "model = pickle.loads((here / 'model.pickle').read_bytes())\n"
        "found = model.predict_proba((here / 'paths.txt').read_text().split('\\n'))\n"
        "assert numpy.array_equal(found, numpy.load(here / 'expected.npy'))"
    )
    process = Forked(script, code, str(tmp_path), log=tmp_path / "log")
    assert process.wait() == 0, process.text()


def test_images_from_pixels_are_not_known_again_by_their_files(
    paths: list[Path], labels: list[str], tmp_path: Path
) -> None:
    pixels = [np.asarray(Image.open(path)) for path in paths]
    deep = [array.astype(np.uint16) * 257 for array in pixels]
    for name, images, kind in (("pixels", pixels, "unknown"), ("deep", deep, "unknown"), ("files", paths, "mixed")):
        folder = classifier().fit(images, labels).save(tmp_path / name)
        assert tl_kit.evaluate(folder, paths[0].parents[1], split="all").kind == kind


def test_saved_estimators_are_scored_on_data_that_is_named(
    paths: list[Path], labels: list[str], tmp_path: Path
) -> None:
    first = classifier().fit(paths, labels).save(tmp_path / "a")
    for name, images in (("b", paths), ("c", [np.asarray(Image.open(path)) for path in paths])):
        second = classifier(seed=1).fit(images, labels).save(tmp_path / name)
        with pytest.raises(MemberError, match="name the folder to score on with --data"):
            tl_kit.ensemble(tl_kit.EnsembleConfig(checkpoints=(first, second), out=tmp_path / "e"))


def test_labels_that_are_no_class_names_are_told_when_saved(
    paths: list[Path], labels: list[str], tmp_path: Path
) -> None:
    model = classifier().fit(paths, [f" {label}" for label in labels])
    with pytest.warns(UserWarning, match=r"cannot all be class names: .*calls them 'class 0' \(' "):
        model.save(tmp_path / "odd")
    classifier().fit(paths, labels).save(tmp_path / "plain")  # without a warning, which would be an error
