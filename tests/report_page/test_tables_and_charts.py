"""Tables and charts of the report against independent computations and properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from tl_kit import metrics
from tl_kit.config import ReportLimits
from tl_kit.report_page.advice import advise
from tl_kit.report_page.charts import Series, chart, ticks
from tl_kit.report_page.class_tables import answered, class_rows, confused_pairs, most_confused, reliability
from tl_kit.report_page.figures import Record, percent, seconds
from tl_kit.report_page.saved_results import Saved, Split


def predictions(images: int = 200, classes: int = 4) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, classes, images)
    scores = rng.normal(0, 1, (images, classes)) + 1.2 * np.eye(classes)[labels]
    return metrics.softmax(scores), labels


def test_reliability_sums_to_the_calibration_error() -> None:
    probabilities, labels = predictions()
    bins = reliability(probabilities, labels, bins=10)
    assert sum(one.images for one in bins) == len(labels)
    error = sum(one.images * abs(one.accuracy - one.confidence) for one in bins) / len(labels)
    assert error == pytest.approx(metrics.ece(probabilities, labels, bins=10))
    assert all(one.interval[0] <= one.accuracy <= one.interval[1] for one in bins)


def test_accuracy_on_the_surest_images() -> None:
    probabilities, labels = predictions()
    rows = answered(probabilities, labels, points=1000)
    confidence = probabilities.max(axis=1)
    for share, accuracy, least in rows:
        kept = confidence >= least
        assert kept.mean() == pytest.approx(share)
        assert metrics.accuracy(probabilities[kept], labels[kept]) == pytest.approx(accuracy)
    assert rows[-1][:2] == pytest.approx((1.0, metrics.accuracy(probabilities, labels)))
    assert len(answered(probabilities, labels, points=7)) == 7


def test_images_of_one_confidence_are_answered_together() -> None:
    rows = answered(np.array([[0.5, 0.5]] * 4), np.array([0, 0, 1, 1]), points=10)
    assert rows == [(1.0, 0.5, 0.5)]


def test_pairs_are_the_off_diagonal_of_the_confusion_matrix() -> None:
    probabilities, labels = predictions()
    pairs = confused_pairs(probabilities, labels)
    expected = confusion_matrix(labels, probabilities.argmax(axis=1))
    np.fill_diagonal(expected, 0)
    found = np.zeros_like(expected)
    for pair in pairs:
        found[pair.label, pair.predicted] = len(pair.images)
        sure = probabilities.max(axis=1)[list(pair.images)]
        assert (np.diff(sure) <= 0).all()
    assert (found == expected).all()
    assert [len(pair.images) for pair in pairs] == sorted((len(pair.images) for pair in pairs), reverse=True)


def test_a_large_matrix_shows_the_classes_with_the_most_errors() -> None:
    assert most_confused([[9, 0, 0], [0, 2, 5], [1, 3, 1]], 2) == [1, 2]


def test_a_class_without_images_has_no_interval() -> None:
    probabilities, labels = predictions(classes=3)
    wide = np.hstack([probabilities, np.zeros((len(labels), 1))])
    last = class_rows(wide, labels, ["a", "b", "c", "none"])[-1]
    assert (last.support, last.recall_interval, last.precision_interval) == (0, None, None)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_inside(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert 1 <= len(found) <= 7
    assert all(low - 1e-6 * width <= at <= low + width * (1 + 1e-6) for at in found)


def test_a_chart_places_its_corners() -> None:
    made = chart([Series(name="s", points=[(0, 0), (1, 2)])], title="", text="", x=("x", 0, 1), y=("y", 0, 2))
    left, top, right, bottom = made.box
    assert made.series[0].path == f"{left}.0,{bottom}.0 {right}.0,{top}.0"


def test_a_figure_is_an_entry_of_its_file() -> None:
    record = Record("a.json", {"x/y": [{"z~": 0.1234}], "n": True, "t": "text"})
    figure = record.figure("x/y", 0, "z~", shape=percent)
    assert figure is not None
    assert (figure.shown, figure.source) == ("12.3\u00a0%", "a.json#/x~1y/0/z~0")
    assert record.figure("n", shape=percent) is None
    assert record.figure("t", shape=percent) is None
    assert record.figure("x/y", 1, shape=percent) is None
    assert [seconds(value) for value in (3.21, 600, 7200)] == ["3.2\u00a0s", "10\u00a0min", "2.0\u00a0h"]


def test_advice_names_the_class_that_is_worse_beyond_chance() -> None:
    labels = np.repeat([0, 1], [100, 100])
    probabilities = np.full((200, 2), 0.1)
    predicted = np.where(np.arange(200) < 195, labels, 0)
    predicted[100:150] = 0  # half of the second class
    probabilities[np.arange(200), predicted] = 0.9
    rows = class_rows(probabilities, labels, ["good", "bad"])
    record = Record("tlkit.json", {})
    saved = Saved(
        folder=Path(),
        kind="run",
        record=record,
        runs=(record,),
        receipt=None,
        splits=(Split("test", "test", 200, ("test",)),),
        model=None,
    )
    accuracy = metrics.accuracy(probabilities, labels)
    (first, *others) = advise(saved, rows=rows, accuracy=accuracy, suspects=0, findings=())
    assert first.title == "More images of bad"
    assert first.worth == pytest.approx((accuracy - rows[1].recall) / 2)
    assert not others
    (nothing,) = advise(saved, rows=rows[:1], accuracy=accuracy, suspects=0, findings=())
    assert nothing.title == "Nothing"


def test_the_bounds_of_a_report_are_sensible() -> None:
    assert ReportLimits.image_bytes < 5_000_000
