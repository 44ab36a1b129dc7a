"""The picture of a run shows what its journal says, and a journal without epochs is answered in one line."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import children
from tests.helpers import quick, write_images
from tl_kit.errors import CheckpointError
from tl_kit.reports.learning_curves import OKABE_ITO, curve_data, curves_figure, draw_curves

ACCURACIES = (0.5, 0.75, 0.9, 0.9, 0.9)
NLLS = (1.1, 0.7, 0.5, 0.4, 0.4)


def rows(**changes: Any) -> list[dict[str, Any]]:
    return [
        {"epoch": float(e + 1), "loss": 2.0 / (e + 1), "lr": 0.1**e, "val_nll": NLLS[e], "val_accuracy": ACCURACIES[e]}
        | changes
        for e in range(5)
    ]


def write(folder: Path, content: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    return folder


def lines_of(panel: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in panel.get_lines()}


def test_the_curves_are_the_journals_and_the_best_epoch_is_the_kept_one() -> None:
    curves = curve_data([{"note": "no epoch"}, *rows()])
    assert curves.epochs == (1, 2, 3, 4, 5)
    assert curves.loss == tuple(2.0 / (e + 1) for e in range(5))
    assert curves.lr == tuple(0.1**e for e in range(5))
    assert (curves.val_nll, curves.val_accuracy) == (NLLS, ACCURACIES)
    assert curves.best_epoch == 4, "epochs 3 to 5 are as accurate; 4 and 5 have the lower NLL; 4 came first"


def test_what_is_drawn_is_what_was_read() -> None:
    figure = curves_figure(curve_data(rows()), title="run")
    loss, accuracy, rate = figure.axes
    assert [panel.get_ylabel() for panel in figure.axes] == ["loss (nats)", "validation accuracy", "learning rate"]
    assert rate.get_xlabel() == "epoch"
    for panel, label, values in [
        (loss, "training loss", [row["loss"] for row in rows()]),
        (loss, "validation NLL", NLLS),
        (accuracy, "_child0", ACCURACIES),
        (rate, "_child0", [row["lr"] for row in rows()]),
    ]:
        line = lines_of(panel)[label]
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4, 5])
        np.testing.assert_array_equal(line.get_ydata(), values)
    star = lines_of(accuracy)["kept: epoch 4, 90.0% (selected on)"]
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([4], [0.9])


def test_a_network_that_is_not_of_that_epoch_is_named() -> None:
    """The head guard may keep the head, or an average, in place of what was trained."""
    _, accuracy, _ = curves_figure(replace(curve_data(rows()), selected=False, kept="average 0.25")).axes
    assert "epoch 4, 90.0%; kept: average 0.25" in lines_of(accuracy)


def test_lines_differ_in_more_than_their_colour() -> None:
    lines = curves_figure(curve_data(rows())).axes[0].get_lines()[:2]
    assert len({line.get_linestyle() for line in lines}) == len({line.get_marker() for line in lines}) == 2
    assert {line.get_color() for line in lines} <= set(OKABE_ITO.values())


def test_without_validation_there_is_no_accuracy_and_the_last_epoch_is_kept() -> None:
    content = [{name: value for name, value in row.items() if not name.startswith("val_")} for row in rows()]
    curves = curve_data(content)
    assert (curves.val_nll, curves.val_accuracy, curves.best_epoch) == (None, None, 5)
    assert [panel.get_ylabel() for panel in curves_figure(curves).axes] == ["loss (nats)", "learning rate"]


@pytest.mark.parametrize(("factor", "scale"), [(1.0, "linear"), (0.01, "log")])
def test_losses_that_differ_much_are_drawn_on_a_logarithmic_scale(factor: float, scale: str) -> None:
    content = rows()
    content[-1]["loss"] *= factor
    assert curves_figure(curve_data(content)).axes[0].get_yscale() == scale


@pytest.mark.parametrize("epochs", [1, 5])
def test_a_png_that_is_not_blank_and_nothing_else_is_left(tmp_path: Path, epochs: int) -> None:
    folder = write(tmp_path / "run", rows()[:epochs])
    (folder / "curves.png").write_bytes(b"an older picture")
    assert draw_curves(folder) == folder / "curves.png"
    with Image.open(folder / "curves.png") as image:
        image.load()
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    drawn = {tuple(int(part) for part in colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0)}
    for name in ("blue", "vermillion", "orange"):
        code = OKABE_ITO[name].lstrip("#")
        assert tuple(bytes.fromhex(code)) in drawn, name
    for edge in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]):
        assert (edge == 255).all(), "nothing is cut off"
    assert sorted(path.name for path in folder.iterdir()) == ["curves.png", "metrics.jsonl"]


def test_a_real_journal(tmp_path: Path) -> None:
    run = quick(write_images(tmp_path / "images"), tmp_path / "run", epochs=3)
    journal = Path(run.checkpoint) / "metrics.jsonl"
    curves = curve_data([json.loads(line) for line in journal.read_text().splitlines()])
    meta = json.loads((Path(run.checkpoint) / "tlkit.json").read_text())
    assert curves.best_epoch == meta["best_epoch"]
    assert run.val is not None
    assert curves.val_nll is not None
    assert curves.val_nll[curves.epochs.index(curves.best_epoch)] == run.val["nll"]
    assert draw_curves(Path(run.checkpoint)).is_file()


def test_a_head_in_closed_form_has_no_curves(tmp_path: Path) -> None:
    run = quick(write_images(tmp_path / "images"), tmp_path / "run", policy="head", epochs=None)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: no epoch to draw .*closed form.*--epochs") as caught:
        draw_curves(Path(run.checkpoint))
    assert "\n" not in str(caught.value)
    assert not (Path(run.checkpoint) / "curves.png").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("", "no epoch"),
        ('{"epoch": 1.0, "lo', "line 1 is not a JSON object"),
        ("[1, 2]\n", "line 1 is not a JSON object"),
        ('{"epoch": 1.0, "lr": 0.1}\n', "epoch 1.0 has no finite 'loss'"),
        ('{"epoch": 1.0, "loss": NaN, "lr": 0.1}\n', "epoch 1.0 has no finite 'loss'"),
        ('{"epoch": "x", "loss": 1.0, "lr": 0.1}\n', "no finite 'epoch'"),
    ],
)
def test_a_journal_that_cannot_be_drawn_is_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        draw_curves(tmp_path)
    assert str(tmp_path / "metrics.jsonl") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "curves.png").exists()


def test_matplotlib_is_imported_when_something_is_drawn_and_pyplot_never(tmp_path: Path) -> None:
    write(tmp_path, rows())
    code = (
        "import sys; from pathlib import Path; from tl_kit.reports.learning_curves import draw_curves\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"draw_curves(Path({str(tmp_path)!r}))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    root = Path(__file__).parents[2]
    done = children.run([sys.executable, "-c", code], cwd=root)
    assert done.returncode == 0, done.stderr
