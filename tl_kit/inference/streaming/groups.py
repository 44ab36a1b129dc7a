"""Predictions of a stream, a few batches at a time, with the bits that one call for all images gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import StreamConfig
from tl_kit.images.deep import Deep
from tl_kit.inference.prediction import Prediction, prediction_of
from tl_kit.inference.run_models import Attempt
from tl_kit.inference.streaming.addresses import Address
from tl_kit.inference.streaming.named import Named
from tl_kit.reporting import UNKNOWN, Reporter

__all__ = ["Classifier", "Group", "Predicted", "groups", "predict_groups", "stream"]


class Classifier(Protocol):
    """Probabilities of images: a checkpoint, an ensemble or an exported file."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def per_batch(self) -> int:
        """Images of a batch."""

    @property
    def at_once(self) -> int:
        """Number of images that are predicted together, in whole batches."""

    def member_probabilities(
        self,
        sources: Sequence[Attempt],
        *,
        before: int = 0,
        filled: bool = False,
        deep: Counter[Deep] | None = None,
        reporter: Reporter,
    ) -> tuple[NDArray[np.float64], dict[int, str]]: ...

    def combine(self, stack: NDArray[np.float64]) -> NDArray[np.float64]: ...

    def tell_deep(self, deep: Counter[Deep], reporter: Reporter) -> None: ...


@dataclass(frozen=True)
class Group:
    """Inputs that are predicted together. Their first image has place ``before`` in its batch.

    ``filled``: their last batch is filled up, because others of it may follow, or might have followed.
    """

    inputs: tuple[Named, ...]
    before: int
    filled: bool


@dataclass(frozen=True)
class Predicted:
    """Predictions of a group of images; ``place``: where in its batch the next image stands, 0 for a new batch."""

    predictions: list[Prediction]
    place: int


def groups(
    items: Iterable[Named | None],
    *,
    per_batch: int,
    at_once: int,
    place: int = 0,
    timed: bool = False,
    config: StreamConfig = StreamConfig(),
) -> Iterator[Group]:
    """Divide inputs into groups of whole batches; after None (a pause), and where memory is full, also of less.

    ``place``: that of the first image in its batch, in a stream that goes on. ``timed``: None may come, at moments that
    nobody knows, so a last batch that is not full is filled up in any case. Without it, such a batch has as many rows
    as there are images left, as it would have in one call; but not if a part of it had to be computed before.
    """
    inputs: list[Named] = []
    images = held = 0
    for item in items:
        if item is not None:
            inputs.append(item)
            if item.source is None:
                continue
            images += 1
            held += len(item.source) if isinstance(item.source, bytes) else 0
        whole = (place + images) % per_batch == 0
        full = held >= config.held_bytes or (whole and images >= at_once)
        if inputs and (item is None or full):
            yield Group(tuple(inputs), place, filled=timed or not whole)
            place = (place + images) % per_batch
            inputs, images, held = [], 0, 0
    if inputs:
        begun = place > 0 and place + images < per_batch
        yield Group(tuple(inputs), place, filled=timed or begun)


def predict_groups(
    classifier: Classifier,
    items: Iterable[Named | None],
    *,
    begun: bool = False,
    place: int = 0,
    timed: bool = False,
    reporter: Reporter,
    config: StreamConfig = StreamConfig(),
) -> Iterator[Predicted]:
    """Predictions of inputs in order, a group at a time; options as for :func:`groups`.

    ``begun``: others of the stream were predicted before.
    Images of more than 8 bits for which the classifier knows no range, or which lie outside it, are told at the end.
    """
    deep: Counter[Deep] = Counter()
    quiet = _Messages(reporter)
    begun = begun or place > 0
    found = groups(
        items, per_batch=classifier.per_batch, at_once=classifier.at_once, place=place, timed=timed, config=config
    )
    for group in found:
        sources = [_source(item) for item in group.inputs if item.source is not None]
        rows: Iterator[tuple[NDArray[np.float64], str | None]] = iter(())
        if sources:
            stack, failures = classifier.member_probabilities(
                sources, before=group.before, filled=group.filled, deep=deep, reporter=quiet
            )
            alone = not (timed or begun)  # as in one call for one image
            combined = _combined(classifier, stack, alone=alone)
            rows = ((row, failures.get(index)) for index, row in enumerate(combined))
            begun = True
        predictions = [_prediction(item, rows, classifier.classes) for item in group.inputs]
        reporter.advance(len(predictions))
        yield Predicted(predictions, (group.before + len(sources)) % classifier.per_batch)
    classifier.tell_deep(deep, reporter)


def _combined(classifier: Classifier, stack: NDArray[np.float64], *, alone: bool) -> NDArray[np.float64]:
    """The rule's probabilities (n, classes): NumPy adds a single row up in another order than several."""
    if stack.shape[1] > 1 or alone:
        return classifier.combine(stack)
    return classifier.combine(np.repeat(stack, 2, axis=1))[:1]


def stream(classifier: Classifier, items: Iterable[Named | None], *, reporter: Reporter) -> Iterator[Prediction]:
    """Predictions of inputs in order, each once its group is computed."""
    reporter.start("predict", UNKNOWN)
    for predicted in predict_groups(classifier, items, reporter=reporter):
        yield from predicted.predictions


def _source(item: Named) -> Attempt:
    found = item.source
    assert not isinstance(found, Address | None), "addresses have been fetched"
    return found


def _prediction(
    item: Named, rows: Iterator[tuple[NDArray[np.float64], str | None]], classes: Sequence[str]
) -> Prediction:
    if item.source is None:
        return Prediction(item.name, {}, item.error)
    row, error = next(rows)
    return prediction_of(item.name, row, classes, error)


class _Messages:
    """A Reporter that passes messages on and drops progress bars, since all groups share one."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def message(self, text: str) -> None:
        self._reporter.message(text)

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, steps: int = 1, **figures: float) -> None: ...

    def epoch(self, row: object) -> None: ...
