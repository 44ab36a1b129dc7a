"""Tables and charts of the report against independent computations and properties."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from tl_kit import metrics
from tl_kit.config import ReportLimits
from tl_kit.errors import CheckpointError
from tl_kit.report_page.advice import advise
from tl_kit.report_page.charts import Series, chart, ticks
from tl_kit.report_page.class_tables import (
    answered,
    class_rows,
    confused_pairs,
    confusion_of,
    most_confused,
    reliability,
    weak_classes,
)
from tl_kit.report_page.computed import Computed, compute
from tl_kit.report_page.figures import Record, percent, seconds
from tl_kit.report_page.page import page_of
from tl_kit.report_page.page_facts import Looks, collect
from tl_kit.report_page.report_charts import cost_chart
from tl_kit.report_page.saved_results import Saved, Split
from tl_kit.report_page.scored import Scored


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
    table = np.array([[9, 0, 0], [0, 2, 5], [1, 3, 1]])
    pairs = [(row, column) for row in range(3) for column in range(3) for _ in range(table[row, column])]
    labels, predicted = np.array(pairs).T
    assert most_confused(labels, predicted, classes=3, most=2) == [1, 2]
    assert confusion_of(labels, predicted, [1, 2]) == [[2, 5], [3, 1]]
    assert confusion_of(labels, predicted, [0, 1, 2]) == table.tolist()
    assert confusion_of(np.array([0]), np.array([1]), [2]) == [[0]]


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
    assert record.figure("x/y", 1, shape=percent) is None
    assert record.figure("none", "at all", shape=percent) is None
    for path in (("n",), ("t",), ("x/y",), ("t", "deeper")):
        with pytest.raises(CheckpointError, match=rf"a\.json: {path[0]} is .*, and must be "):
            record.figure(*path, shape=percent)
    assert [percent(value) for value in (1.0, 0.99964, 0.999999, 0.9994)] == [
        f"{text}\u00a0%" for text in ("100.0", "99.96", "100.0", "99.9")
    ]
    assert [seconds(value) for value in (3.21, 600, 7200)] == ["3.2\u00a0s", "10\u00a0min", "2.0\u00a0h"]


def saved_run(content: dict[str, object] | None = None, kind: str = "test") -> Saved:
    record = Record("tlkit.json", content or {})
    return Saved(
        folder=Path(),
        kind="run",
        record=record,
        runs=(record,),
        receipt=None,
        splits=(Split("test", kind, 200, ("test",)),),
        model=None,
    )


def scored_as(labels: NDArray[np.int64], predicted: NDArray[np.int64], names: list[str]) -> Scored:
    probabilities = np.full((len(labels), len(names)), 0.1 / (len(names) - 1))
    probabilities[np.arange(len(labels)), predicted] = 0.9
    paths = tuple(Path(f"{number}.png") for number in range(len(labels)))
    return Scored(
        split="test", kind="test", classes=tuple(names), paths=paths, labels=labels, probabilities=probabilities
    )


def titles(made: Computed, saved: Saved | None = None) -> list[str]:
    found = advise(saved or saved_run(), made, suspects=0, findings=(), limits=ReportLimits())
    return [one.title for one in found]


def test_advice_names_the_class_that_is_worse_beyond_chance() -> None:
    labels = np.repeat([0, 1], [100, 100])
    predicted = np.where(np.arange(200) < 195, labels, 0)
    predicted[100:150] = 0  # half of the second class
    made = compute(scored_as(labels, predicted, ["good", "bad", "neither"]), ReportLimits())
    unscored, first = advise(saved_run(), made, suspects=0, findings=(), limits=ReportLimits())
    assert unscored.title == "Score images of neither"
    assert unscored.text.startswith("No scored image is of neither: these scores say nothing of it.")
    assert first.title == "More images of bad"
    assert first.worth == pytest.approx((145 / 200 - 0.45) / 2)
    assert "55 of the 55 missed are taken for good" in first.text
    predicted = np.where(np.arange(200) % 20 == 0, 1 - labels, labels)
    assert titles(compute(scored_as(labels, predicted, ["good", "bad"]), ReportLimits())) == ["Nothing"]


def test_all_classes_without_images_are_counted_however_few_the_tables_show() -> None:
    labels = np.repeat([0, 1], 20)
    names = [f"class {number}" for number in range(1000)]
    made = compute(scored_as(labels, labels, names), ReportLimits())
    first = advise(saved_run(), made, suspects=0, findings=(), limits=ReportLimits())[0]
    assert first.title == "Score images of class 2, class 3, class 4, class 5, class 6 and 993 more"


def test_the_folds_advised_score_the_same_policy_at_the_same_size() -> None:
    saved = saved_run({"config": {"model": "resnet18", "data": "imgs", "policy": "last:2", "img_size": 96}})
    labels = np.repeat([0, 1], 10)
    made = compute(scored_as(labels, np.where(np.arange(20) % 5 == 0, 1 - labels, labels), ["a", "b"]), ReportLimits())
    (found,) = advise(saved, made, suspects=0, findings=(), limits=ReportLimits())
    assert found.command == "tlkit finetune resnet18 --data imgs --policy last:2 --img-size 96 --folds 5"


def test_where_nothing_was_scored_no_class_is_called_good() -> None:
    assert titles(compute(None, ReportLimits())) == ["Show it the images"]


def test_an_accuracy_that_one_answer_for_all_reaches_is_no_success() -> None:
    labels = np.repeat([0, 1], [190, 10])
    made = compute(scored_as(labels, np.zeros(200, dtype=np.int64), ["common", "rare"]), ReportLimits())
    assert titles(made)[0] == "Not measurably better than always saying common"
    assert titles(compute(scored_as(labels, labels, ["common", "rare"]), ReportLimits())) == ["Nothing"]


def test_of_one_class_alone_nothing_is_guessed() -> None:
    labels = np.zeros(200, dtype=np.int64)
    assert not any(
        "always" in title for title in titles(compute(scored_as(labels, labels, ["a", "b"]), ReportLimits()))
    )


def test_few_images_ask_for_more() -> None:
    labels = np.repeat([0, 1], 10)
    made = compute(scored_as(labels, np.where(np.arange(20) % 5 == 0, 1 - labels, labels), ["a", "b"]), ReportLimits())
    found = advise(
        saved_run({"config": {"model": "resnet18", "data": "my imgs"}}),
        made,
        suspects=0,
        findings=(),
        limits=ReportLimits(),
    )
    assert [one.title for one in found] == ["Score more images"]
    assert found[0].command == "tlkit finetune resnet18 --data 'my imgs' --folds 5"
    low, high = metrics.wilson(0.8, 20)
    assert f"{percent(low)} to {percent(high)}), from 20 images. About 250 would do" in found[0].text


def test_of_many_equal_classes_few_are_named_by_chance() -> None:
    """One in forty would be, if each class were looked at alone."""
    rng = np.random.default_rng(3)
    named = 0
    for _ in range(20):
        labels = np.repeat(np.arange(200), 20)
        predicted = np.where(rng.random(len(labels)) < 0.7, labels, (labels + 1) % 200)
        named += bool(weak_classes(labels, predicted, classes=200, rate=0.05))
    assert named <= 4
    predicted[:20] = 1  # of class 0 none is found
    assert weak_classes(labels, predicted, classes=201, rate=0.05)[0] == 0


def test_of_many_classes_the_page_shows_the_worst_and_says_where_all_are() -> None:
    rng = np.random.default_rng(0)
    many, limits = 3_000, ReportLimits()
    labels = np.concatenate([np.repeat(np.arange(many), 2), np.zeros(1_000, dtype=np.int64)])
    predicted = np.where(rng.random(len(labels)) < 0.6, labels, rng.integers(0, many, len(labels)))
    names = [f"class {number} {'x' * 900}" for number in range(many)]
    probabilities = np.full((len(labels), many), 0.4 / (many - 1))
    probabilities[np.arange(len(labels)), predicted] = 0.6
    scored = replace(scored_as(labels[:2], predicted[:2], names), labels=labels, probabilities=probabilities)
    saved = saved_run({"classes": names, "test": {"accuracy": 0.6}})
    facts = collect(
        saved, scored, missing="", looks=Looks(), findings=(), examined="", suspects=0, limits=limits, names=True
    )
    text = page_of(facts)
    assert len(text.encode()) < 5_000_000
    assert limits.classes <= len(facts.rows) <= limits.classes + limits.weak
    assert len(facts.matrix[0]) == limits.matrix
    told = f"{many - len(facts.rows):,} others are left out. tlkit evaluate . --data PATH --split test --json"
    assert told in text
    named = {row[each] for row in facts.computed["per_class"] for each in ("name", "taken_for")} - {""}
    assert {name for name in names if name in text} == named | set(facts.computed["confusion_classes"])
    assert len(facts.advice) <= limits.weak + 1


def test_the_bounds_of_a_report_are_sensible() -> None:
    assert ReportLimits.image_bytes < 5_000_000


def test_ticks_have_the_digits_that_tell_them_apart() -> None:
    drawn = chart([Series(name="n", points=[(0, 0.34)])], title="", text="", x=("x", 0, 1), y=("y", 0.335, 0.355))
    texts = [text for _, text in drawn.y_ticks]
    assert "34.0\u00a0%" in texts
    assert len(set(texts)) == len(texts) > 2
    assert [text for _, text in drawn.x_ticks][:2] == ["0\u00a0%", "20\u00a0%"]


@pytest.mark.parametrize(("derived", "networks", "passes"), [(None, 2, 60), ({"rule": "soup"}, 1, 30)])
def test_cost_is_in_forward_passes(derived: dict[str, Any] | None, networks: int, passes: int) -> None:
    scores = {"test": {"accuracy": 0.5}}
    receipt = {
        "members": [scores, scores],
        "ensemble": scores,
        "derived": derived,
        "smallest_subset": {"members": [1], "accuracy": 0.4, "test": {"accuracy": 0.5}} if derived is None else None,
        "cost": {"forward_passes": passes},
    }
    record = Record("ensemble.json", {"receipt": receipt})
    split = Split("test", "test", 10, ("receipt", "ensemble", "test"))
    runs = (Record("tlkit.json", {}),) * networks
    saved = Saved(
        folder=Path(), kind="ensemble", record=record, runs=runs, receipt=("receipt",), splits=(split,), model=None
    )
    drawn = cost_chart(saved)
    assert drawn is not None
    found = {name: float(at) for name, at, _ in drawn.rows}
    alone = {"a member alone": 30, "the smallest subset within noise": 30, "all members": 60}
    assert found == (alone if derived is None else {"a member alone": 30, "the result": 30})
