"""The pictures of the examples show what they claim: the claims, in numbers."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import references
from tl_kit.demonstration import write_digits
from tl_kit.optimization.schedules import create_schedule, schedule_names
from tl_kit.zoo.starter import starter_path

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def paths() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / "optimizer_paths.py"))


@pytest.fixture(scope="module")
def decay() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / "lr_decay.py"))


def on_bowl(paths: dict[str, Any], walk: str) -> Any:
    return paths["walk_path"](paths[walk], paths["bowl"], paths["BOWL_START"], steps=30)


def on_saddle(paths: dict[str, Any], *, steps: int) -> dict[str, Any]:
    walks = paths["SADDLE_WALKS"]
    return {w.name: paths["walk_path"](w, paths["saddle"], paths["SADDLE_START"], steps=steps) for w in walks}


def check_png(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 500
        assert len(image.convert("RGB").getcolors(2**24)) > 50


def test_sgd_zigzags_at_the_rate_that_is_best_for_it(paths: dict[str, Any]) -> None:
    points = on_bowl(paths, "SGD")
    assert (np.sign(points[1:, 1]) == -np.sign(points[:-1, 1])).all()
    assert (np.diff(points[:, 0]) > 0).all(), "along the shallow axis it only ever goes on"
    norm = np.linalg.norm(points[-1])
    for factor in (0.8, 1.05):
        other = paths["path"]("sgd", paths["bowl"], paths["BOWL_START"], lr=factor * paths["FASTEST_SGD"], steps=30)
        assert np.linalg.norm(other[-1]) > norm


def test_a_path_is_the_equation_of_the_reference(paths: dict[str, Any]) -> None:
    points, walk = on_bowl(paths, "MOMENTUM"), paths["MOMENTUM"]
    gradient = np.array([1.0, paths["STEEPNESS"]])
    rule = references.momentum(np.array(paths["BOWL_START"]), lambda x, t: gradient * x, lr=walk.lr, rho=0.9)
    np.testing.assert_allclose(points[1:], [next(rule) for _ in range(30)], rtol=0, atol=1e-10)
    assert tuple(points[0]) == paths["BOWL_START"]


def test_nesterov_overshoots_less_than_momentum_at_the_same_rate(paths: dict[str, Any]) -> None:
    assert paths["MOMENTUM"].lr == paths["NESTEROV"].lr
    assert paths["overshoot"](on_bowl(paths, "MOMENTUM")) > 1.2 * paths["overshoot"](on_bowl(paths, "NESTEROV")) > 0
    assert paths["overshoot"](on_bowl(paths, "SGD")) < 0


def test_rmsprop_and_adagrad_go_straighter_than_sgd_and_as_far(paths: dict[str, Any]) -> None:
    sgd = on_bowl(paths, "SGD")
    for walk in ("RMSPROP", "ADAGRAD"):
        points = on_bowl(paths, walk)
        assert 1 <= paths["detour"](points) < 1.1 < 3 < paths["detour"](sgd)
        assert np.linalg.norm(points[-1]) < 0.1 * np.linalg.norm(points[0])
        assert (points[:, 1] > -0.01).all(), "it never crosses the valley"


def test_detour_and_step_lengths_of_a_known_path(paths: dict[str, Any]) -> None:
    corner = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
    np.testing.assert_array_equal(paths["step_lengths"](corner), [3, 4])
    assert paths["detour"](corner) == pytest.approx(7 / 5)


def test_sgd_is_still_at_the_saddle_when_the_others_have_left(paths: dict[str, Any]) -> None:
    away = {name: np.abs(points[:, 0]) for name, points in on_saddle(paths, steps=70).items()}
    left = {name: int(np.argmax(distance > 0.5)) for name, distance in away.items()}
    assert set(left) == {"sgd", "momentum", "rmsprop", "adam"}
    for name in ("momentum", "rmsprop", "adam"):
        assert 0 < left[name] < left["sgd"] / 2
        assert away["sgd"][left[name]] < 0.1
    rates = {walk.name: walk.lr for walk in paths["SADDLE_WALKS"]}
    assert rates["momentum"] == rates["sgd"]
    assert all(distance[-1] == pytest.approx(1, abs=0.1) for distance in away.values()), "all reach the minimum"


def test_without_correction_adams_first_steps_are_too_long(paths: dict[str, Any]) -> None:
    lengths = {}
    for walk in paths["ADAM_WALKS"]:
        points = paths["walk_path"](walk, paths["slope"], paths["SLOPE_START"], steps=200)
        lengths[walk.name] = paths["step_lengths"](points) / walk.lr
    np.testing.assert_allclose(lengths["adam"], 1, rtol=1e-6)
    t = np.arange(1, 201)
    expected = (1 - 0.9**t) / np.sqrt(1 - 0.999**t)
    np.testing.assert_allclose(lengths["adam-uncorrected"], expected, rtol=1e-5)
    assert lengths["adam-uncorrected"][0] == pytest.approx(0.1 / math.sqrt(0.001), rel=1e-5)


def test_the_paths_are_drawn_and_every_rate_is_stated(
    paths: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = paths["draw"]()
    for panel in figure.axes:
        assert panel.get_title()
        assert panel.get_xlabel()
        assert panel.get_ylabel()
        assert all("lr 0." in text.get_text() or "lr 1.5" in text.get_text() for text in panel.get_legend().get_texts())
    drawn = figure.axes[0].get_lines()[0].get_xydata()
    np.testing.assert_array_equal(drawn, on_bowl(paths, "SGD"))
    check_png(paths["main"](tmp_path / "paths.png"))
    assert capsys.readouterr().out == f"{tmp_path / 'paths.png'}\n"


@pytest.mark.parametrize("name", schedule_names())
def test_every_schedule_is_drawn_as_the_registry_has_it(decay: dict[str, Any], name: str) -> None:
    from matplotlib.figure import Figure

    panel = Figure().subplots()
    decay["draw_schedule"](panel, name)
    drawn = np.asarray(panel.get_lines()[-1].get_ydata())
    assert panel.get_title(loc="left") == name
    schedule = create_schedule(name, total_steps=len(drawn))
    if name == "plateau":
        assert set(np.round(drawn, 12)) == {1, 0.1, 0.01}, "it drops once in each of the two stalls"
        assert len(panel.patches) == 2
    else:
        np.testing.assert_array_equal(drawn, [schedule(step) for step in range(len(drawn))])
    assert drawn.max() <= panel.get_ylim()[1]
    assert drawn.min() >= panel.get_ylim()[0]


@pytest.mark.real
@pytest.mark.skipif(starter_path("tf_efficientnet_lite0") is None, reason="the starter wheels are not installed")
def test_a_real_run_has_the_rates_of_the_step_schedule(
    decay: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "digits"
    write_digits(data, side=64)
    for folder in data.iterdir():
        for image in sorted(folder.iterdir())[20:]:
            image.unlink()
    curves = decay["main"](tmp_path / "decay.png", data, epochs=10)
    assert curves.epochs == tuple(range(1, 11)), "no early stop"
    schedule = create_schedule("step", total_steps=10)  # an epoch a step: each ends where one of these does
    np.testing.assert_allclose(np.array(curves.lr) / curves.lr[0], [schedule(epoch) for epoch in range(10)], rtol=1e-12)
    assert decay["drops"](curves) == [4, 7, 10]
    assert curves.loss[-1] < curves.loss[0] / 2
    assert curves.val_accuracy is not None
    assert max(curves.val_accuracy) > 0.5, "ten digits, of which chance knows a tenth"
    figure = decay["draw"](curves, title="a run")
    labels = [text.get_text() for text in figure.axes[-1].texts]
    assert labels == [f"lr {curves.lr[epoch - 1]:.2g}" for epoch in (1, 4, 7, 10)]
    check_png(tmp_path / "decay.png")
    assert capsys.readouterr().out == f"{tmp_path / 'decay.png'}\n"
