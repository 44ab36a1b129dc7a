"""``ImageClassifier``: the weights of ``tlkit finetune``, every form of images and labels, and scikit-learn's tools."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import tl_kit
from tests.cli.helpers import tlkit
from tests.helpers import interrupt, quick_config, same, weights
from tests.sklearn.helpers import classifier
from tl_kit.config import DataConfig, RuntimeConfig
from tl_kit.errors import ConfigError, DataError, InputError, SamplesError

pytestmark = pytest.mark.usefixtures("one_thread")


def write_table(file: Path, rows: list[tuple[Any, ...]]) -> Path:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "split")[: len(rows[0])], *rows])
    return file


# Parity with the command line.


@pytest.mark.parametrize(
    ("params", "flags"),
    [
        ({"policy": "head"}, ("--policy", "head")),
        (
            {"policy": "last:2", "epochs": 2, "batch_size": 8, "seed": 3, "options": {"l2": 0.1, "head-guard": False}},
            *[("--policy", "last:2", "--epochs", 2, "--batch-size", 8, "--seed", 3, "--l2", 0.1, "--no-head-guard")],
        ),
    ],
    ids=["head", "last:2"],
)
def test_weights_are_those_of_the_command_line(
    params: dict[str, Any], flags: tuple[Any, ...], paths: list[Path], labels: list[str], tmp_path: Path
) -> None:
    rows = [
        (path, label, "train" if index < 24 else "val")
        for index, (path, label) in enumerate(zip(paths, labels, strict=True))
    ]
    data = write_table(tmp_path / "data.csv", rows)
    command = ("finetune", "test_resnet", "--data", data, "--weights", "none", "--img-size", 32)
    done = tlkit(*command, *flags, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    params = {**params, "options": {"refit": True, **params.get("options", {})}}  # as the command line does
    model = classifier(**params).fit(paths[:24], labels[:24], validation=(paths[24:], labels[24:]))
    assert same(weights(model.save(tmp_path / "saved")), weights(tmp_path / "run"))
    assert model.result_.val is not None


def test_validation_images_are_set_aside_as_finetune_does_it(
    paths: list[Path], labels: list[str], tmp_path: Path
) -> None:
    data = write_table(tmp_path / "data.csv", list(zip(paths, labels, strict=True)))
    config = quick_config(
        data,
        tmp_path / "run",
        split=DataConfig(val_fraction=0.25, test_fraction=0.0),
        runtime=RuntimeConfig(),
    )
    run = tl_kit.finetune(config)
    options = {"warmup": 0.0}
    model = classifier(policy="full", epochs=2, batch_size=8, val_fraction=0.25, options=options).fit(paths, labels)
    assert same(weights(model.save(tmp_path / "saved")), weights(run.checkpoint))
    assert model.result_.val == run.val
    assert model.result_.test is None


# Forms of images.


def test_all_forms_of_the_same_pixels_predict_the_same(paths: list[Path], labels: list[str]) -> None:
    model = classifier().fit(paths, labels)
    expected = model.predict_proba(paths)
    pictures = [Image.open(path) for path in paths]
    pixels = np.stack([np.asarray(picture) for picture in pictures])
    forms = [list(map(str, paths)), np.array(list(map(str, paths))), np.array(paths, dtype=object)[:, None]]
    forms += [pictures, pixels, list(pixels), tuple(paths), [path.read_bytes() for path in paths]]
    for form in forms:
        assert np.array_equal(model.predict_proba(form), expected)


def test_arrays_and_pictures_train_alike(paths: list[Path], labels: list[str], tmp_path: Path) -> None:
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    of_array = classifier().fit(pixels, labels)
    of_pictures = classifier().fit([Image.open(path) for path in paths], labels)
    assert same(weights(of_array.save(tmp_path / "a")), weights(of_pictures.save(tmp_path / "b")))
    assert of_array.score(pixels, labels) > 0.9


@pytest.mark.parametrize("samples", ["grey", "alpha", "grey 16", "colour 16"])
def test_arrays_are_read_as_the_decoder_reads_files(
    samples: str, paths: list[Path], labels: list[str], tmp_path: Path
) -> None:
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    files = []
    if samples == "grey":
        pixels = pixels[..., 0]
    elif samples == "alpha":
        pixels = np.concatenate([pixels, np.full((*pixels.shape[:3], 1), 128, np.uint8)], axis=3)
    elif samples == "grey 16":
        pixels = pixels[..., 0].astype(np.uint16) * 16  # 12 bits in use, which fit measures
    else:
        pixels = pixels.astype(np.uint16) * 16
    for index, image in enumerate(pixels):
        files.append(tmp_path / f"{index}.{'ppm' if samples == 'colour 16' else 'png'}")
        if samples == "colour 16":
            files[-1].write_bytes(b"P6 48 40 65535\n" + image.astype(">u2").tobytes())
        else:
            Image.fromarray(image).save(files[-1])
    model = classifier().fit(pixels, labels)
    assert np.array_equal(model.predict_proba(pixels), model.predict_proba(files))
    assert len(np.unique(model.predict_proba(pixels), axis=0)) > 30, "images are told apart"
    if samples.endswith("16"):
        kept = model.save(tmp_path / "saved")
        assert json.loads((kept / "tlkit.json").read_text())["ranges"] == {"uint16": [0, 4095]}


def test_deep_pillow_images_are_read_as_their_files(paths: list[Path], labels: list[str], tmp_path: Path) -> None:
    shades = [np.asarray(Image.open(path))[..., 0] for path in paths]
    files = [tmp_path / f"{index}.tif" for index in range(len(shades))]
    for file, shade in zip(files, shades, strict=True):
        Image.fromarray(shade.astype(np.float32) / 255).save(file)
    model = classifier().fit(files, labels)
    assert np.array_equal(model.predict_proba([Image.open(file) for file in files]), model.predict_proba(files))


def test_predictions_are_in_the_order_of_the_images(paths: list[Path], labels: list[str]) -> None:
    model = classifier().fit(paths, labels)
    order = np.random.default_rng(0).permutation(len(paths))
    found = model.predict_proba([paths[index] for index in order])
    np.testing.assert_allclose(found, model.predict_proba(paths)[order], atol=1e-6)
    assert model.predict(paths).tolist() == labels


def test_names_that_no_table_can_hold(paths: list[Path], labels: list[str], tmp_path: Path) -> None:
    odd = [tmp_path / f' {index}\nline 2, "x" ' for index in range(len(paths))]
    for path, target in zip(paths, odd, strict=True):
        target.write_bytes(path.read_bytes())
    model, plain = classifier().fit(odd, labels), classifier().fit(paths, labels)
    assert np.array_equal(model.predict_proba(odd), plain.predict_proba(paths))


# Labels.

CODES = {
    "texts": ["red", "green", "blue"],
    "integers": [10, 2, -1],
    "floats": [0.0, 1.0, 2.0],
    "booleans": [True, False, True],
    "objects": np.array(["b", "a", "c"], dtype=object),
    "blanks": ["a", "a ", ""],
    "accents": ["caf\u00e9", "cafe\u0301", "tea"],
    "small": np.array([3, 1, 2], dtype=np.int8),
}


@pytest.mark.parametrize("name", CODES)
def test_labels_of_every_type(name: str, paths: list[Path], labels: list[str]) -> None:
    codes = np.asarray(CODES[name])
    y = codes[[["red", "green", "blue"].index(label) for label in labels]]
    model, reference = classifier().fit(paths, y), DummyClassifier().fit(np.zeros((len(y), 1)), y)
    assert model.classes_.dtype == reference.classes_.dtype
    assert model.classes_.tolist() == reference.classes_.tolist()
    assert model.predict(paths).dtype == y.dtype
    assert model.predict(paths).tolist() == y.tolist()
    probabilities = model.predict_proba(paths)
    assert probabilities.shape == (len(y), len(reference.classes_))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_a_dozen_classes_keep_their_columns(paths: list[Path]) -> None:
    """As class names 10 would stand behind 2, and -1 behind 1; as numbers they do not."""
    pixels = np.stack([np.full((16, 16, 3), (20 * code, 255 - 20 * code, 60), np.uint8) for code in range(12)] * 4)
    pixels += np.random.default_rng(0).integers(0, 9, pixels.shape, dtype=np.uint8)
    y = np.arange(12).repeat(1).tolist() * 4
    model = classifier().fit(pixels, np.array(y) - 1)
    assert model.classes_.tolist() == list(range(-1, 11))
    assert (model.predict_proba(pixels).argmax(axis=1) == y).mean() > 0.8


# scikit-learn's tools.


def test_parameters_and_clones() -> None:
    model = classifier(options={"l2": 0.1}).set_params(options__mixup=0.2, seed=1)
    assert model.options == {"l2": 0.1, "mixup": 0.2}
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    assert twin.set_params(options__l2=0.3).options["l2"] == 0.3
    assert model.options["l2"] == 0.1
    with pytest.raises(ValueError, match="Invalid parameter 'nonsense'"):
        model.set_params(nonsense=1)


def test_cross_validation_and_grid_search(paths: list[Path], labels: list[str]) -> None:
    scores = cross_val_score(classifier(), paths, labels, cv=3, error_score="raise")
    assert scores.mean() > 0.9
    found = cross_val_predict(classifier(), np.array(paths), labels, cv=3, method="predict_proba")
    assert found.shape == (36, 3)
    steps = make_pipeline(FunctionTransformer(), classifier())
    grid = {"imageclassifier__options__opt": [["C=1e-9"], ["C=10"]], "imageclassifier__img_size": [32]}
    search = GridSearchCV(steps, grid, cv=2, scoring="neg_log_loss", error_score="raise").fit(np.array(paths), labels)
    assert search.best_params_["imageclassifier__options__opt"] == ["C=10"], "the other predicts one class for all"
    assert search.score(np.array(paths), labels) > -0.3


def test_votes_with_others(paths: list[Path], labels: list[str]) -> None:
    members = [("a", classifier(seed=0)), ("b", classifier(seed=1))]
    vote = VotingClassifier(members, voting="soft").fit(paths, labels)
    mean = np.mean([member.predict_proba(paths) for member in vote.estimators_], axis=0)
    np.testing.assert_allclose(vote.predict_proba(paths), mean, atol=1e-6)


# Mistakes.


def array(*shape: int, dtype: Any = np.uint8) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


@pytest.mark.parametrize(
    ("x", "y", "error", "text"),
    [
        (
            array(4, 8, 8),
            [0, 1, 2, 3],
            DataError,
            r"X, y: no validation image; .* if these are classes: give fit validation=\(X, y\), or a sec",
        ),
        (array(4, 8, 8), [0, 0, 0, 0], SamplesError, "y has one class only, 0; at least 2 are needed"),
        (array(4, 8, 8), None, ValueError, "requires y to be passed, but the target y is None"),
        (array(4, 8, 8), [0, 1, 0], ValueError, "inconsistent numbers of samples"),
        (array(4, 8, 8), [0.5, 1.2, 0.1, 2.7], ValueError, "Unknown label type: continuous"),
        (array(4, 8, 8), [0, 1, 0, np.nan], ValueError, "y contains NaN"),
        (array(4, 8, 8), ["a", None, "b", "a"], ValueError, r"y\[1\] is None \(1 of the 4 labels are\)"),
        (array(4, 8), [0, 1, 0, 1], SamplesError, r"X is an array of uint8 \(4, 8\), which holds no images"),
        (array(4, 8, 8, dtype=float), [0, 1, 0, 1], InputError, r"float64 \(4, 8, 8\): numbers from 0 to 1 become"),
        (
            array(8, 8, 3),
            [0, 1] * 4,
            InputError,
            r"X is an array of uint8 \(8, 8, 3\): of one image give X\[None\]",
        ),
        (array(4, 3, 8, 8), [0, 1, 0, 1], InputError, r"X\[0\] is .* \(3, 8, 8\): channels come last.*; an estimator"),
        ([array(8, 8), array(8, 8, 7)], [0, 1], InputError, r"X\[1\] is .* \(8, 8, 7\); an estimator takes"),
        (
            ["x.jpg", "https://a.org/y.jpg"],
            [0, 1],
            InputError,
            r"X\[1\] is https.* an address, and files are read",
        ),
        ((each for each in "ab"), [0, 1], InputError, "X is one generator, and must be a list of images"),
        ("photo.jpg", ["a"], InputError, "X is one str, and must be a list of images"),
        (["x.jpg", "y.jpg"], [0, 1], SamplesError, r"X\[0\] \(x\.jpg\): no such file, and none at any other"),
        ([None, None], [0, 1], InputError, r"X is an array of object|X\[0\] is None"),
        ([], [], SamplesError, "0 sample"),
        (
            array(12, 8, 8)[[*range(12), 0]],
            [0, 1] * 6 + [1],
            DataError,
            r'X\[0\], X\[12\]\).*options=\{"allow": \[.label',
        ),
    ],
)
def test_mistakes_in_images_and_labels(x: Any, y: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        classifier().fit(x, y)
    assert "/tlkit-" not in str(caught.value), "names a folder that the user does not know"
    assert "doctor" not in str(caught.value)
    assert "predict" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"options": {"l3": 1}}, "options: l3: no such option"),
        ({"options": {"mixupp": 1}}, "options: mixupp: no such option; did you mean mixup"),
        ({"options": {"l2": -1}}, "options: --l2 -1: must be at least 0"),
        ({"options": {"l2": "much"}}, "options: l2 'much': must be a number"),
        ({"options": {"seed": 1}}, "options: seed: is a parameter of its own"),
        ({"options": {"out": "x"}}, "options: out: is for runs in a folder"),
        ({"options": ["l2=1"]}, r"options \['l2=1'\]: must be a mapping from names to values, or None"),
        ({"options": {3: 1}}, r"options \{3: 1\}: must be a mapping from names to values, or None"),
        ({"epochs": "many"}, "epochs 'many': must be a whole number, or None"),
        ({"val_fraction": 1.0}, "val_fraction 1.0: must be at least 0 and below 1"),
        ({"policy": "nonsense"}, "nonsense"),
    ],
)
def test_mistakes_in_parameters(params: dict[str, Any], text: str, paths: list[Path], labels: list[str]) -> None:
    with pytest.raises(ConfigError, match=text):
        classifier(**params).fit(paths, labels)


def test_validation_images_that_do_not_fit(paths: list[Path], labels: list[str]) -> None:
    with pytest.raises(SamplesError, match="no training image has the label 'pink'"):
        classifier().fit(paths, labels, validation=(paths[:2], ["pink", "red"]))
    with pytest.raises(DataError, match=r"validation\[0\]: .* is listed with another split in X\[0\]"):
        classifier().fit(paths, labels, validation=(paths[:6], labels[:6]))
    no_pair: Any = paths
    with pytest.raises(SamplesError, match="must be a pair"):
        classifier().fit(paths, labels, validation=no_pair)


def test_images_that_cannot_be_used(paths: list[Path], labels: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(paths[0].read_bytes()[:300])
    with pytest.warns(UserWarning, match=r"2 images were left out of training, the first: .*gone.png: X\[36\]: no suc"):
        model = classifier().fit([*paths, tmp_path / "gone.png", broken], [*labels, "red", "red"])
    assert model.score(paths, labels) > 0.9
    with pytest.warns(UserWarning, match=r"^1 image was left out of training: .*broken\.png"):
        classifier().fit([*paths, broken], [*labels, "red"])
    with pytest.raises(DataError, match=r"broken\.png"):
        classifier(options={"strict": True}).fit([*paths, broken], [*labels, "red"])
    with pytest.raises(SamplesError, match=r"X\[1\] \(.*broken\.png\): truncated"):
        model.predict([paths[0], broken])


def test_ctrl_c_ends_the_fit(paths: list[Path], labels: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind the first epoch, from which on the command line would keep the run."""
    interrupt(monkeypatch, at=6)
    model = classifier(policy="full", epochs=3, batch_size=8)
    with pytest.raises(KeyboardInterrupt):
        model.fit(paths, labels)
    assert not hasattr(model, "classes_")


def test_validation_images_of_ones_own_train_nothing_unless_asked(paths: list[Path], labels: list[str]) -> None:
    others, wrong = paths[:6], [*labels[1:6], labels[0]]  # six of the three classes, with labels that are not theirs
    kept = paths[6:], labels[6:]
    plain = classifier().fit(*kept, validation=(others, wrong))
    assert not plain.result_.refit
    assert plain.score(others, wrong) == pytest.approx(plain.result_.val["accuracy"])
    assert classifier(options={"refit": True}).fit(*kept, validation=(others, wrong)).result_.refit
    assert classifier().fit(paths, labels).result_.refit


def test_a_tracker_that_writes_into_the_run_is_refused(paths: list[Path], labels: list[str]) -> None:
    with pytest.raises(ConfigError, match="options: track: tensorboard writes into a run's folder"):
        classifier(options={"track": ["tensorboard"]}).fit(paths, labels)
