"""Choice of an L2 penalty by cross-validation, with no part for any one image and little for chance.

Of all penalties whose loss out of fold is within one standard error of the lowest, the one nearest to the usual penalty
is taken (Breiman et al. 1984, "Classification and regression trees", take the simplest there): where images are few,
the lowest of many nearly equal losses is a matter of luck, and a penalty that suits most data sets is the better guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.config import PenaltyConfig
from tl_kit.optimization.side_by_side import side_by_side
from tl_kit.optimization.softmax_regression import Floats, Images, Solution, fit_images

if TYPE_CHECKING:
    import torch

__all__ = [
    "Folds",
    "OutOfFold",
    "choose",
    "drawn_folds",
    "fit_path",
    "out_of_fold",
    "stratified_part",
]


@dataclass(frozen=True, eq=False)
class Folds:
    """The fold of each image (n,), below 0 where it is never held out; ``units`` (n,): equal for what belongs together.

    The images outside of a fold must have all classes.
    """

    numbers: NDArray[np.int64]
    units: NDArray[np.int64]

    @property
    def held_out(self) -> NDArray[np.int64]:
        """The numbers of the folds."""
        return np.unique(self.numbers[self.numbers >= 0])


def drawn_folds(labels: NDArray[np.int64], folds: int, *, units: NDArray[np.int64] | None = None) -> Folds:
    """Folds of even sizes, also within each class; a class of one unit is never held out.

    Args:
        labels: (n,).
        folds: their number, at least 2.
        units: (n,) whole numbers, equal for images that belong together; None: each image is one. They are dealt out
            in the order of their numbers, class after class as these occur in that order.
    """
    units = np.arange(len(labels)) if units is None else units
    names, first, unit_of = np.unique(units, return_index=True, return_inverse=True)
    numbers = np.empty(len(names), dtype=np.int64)
    taken = 0
    for label in dict.fromkeys(labels[first].tolist()):
        members = np.flatnonzero(labels[first] == label)  # a unit of several classes goes with its first image
        numbers[members] = (taken + np.arange(len(members))) % folds
        taken += len(members)
    found = numbers[unit_of]
    for label in np.unique(labels):
        of_class = labels == label
        if len(np.unique(found[of_class])) == 1:
            found[np.isin(unit_of, unit_of[of_class])] = -1
    return Folds(found, unit_of)


def stratified_part(labels: NDArray[np.int64], most: int, *, least: int, seed: int) -> NDArray[np.int64]:
    """Positions of about ``most`` images in the classes' proportions, ``least`` at least of each class, in order."""
    share = min(1.0, most / len(labels))
    rng = np.random.default_rng(seed)
    found = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        found.append(members[: max(least, round(share * len(members)))])
    return np.sort(np.concatenate(found))


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Predictions of m images by fits without them, for each of the strengths that converged in all folds.

    ``images``: indices (m,) of the images that were held out once; ``strengths`` (s,), strongest penalty first;
    ``at_label`` (s, m): the probability of the image's label among ``classes``; ``right`` (s, m): whether it is the
    highest; ``starts``: a fit of each strength, to start others from.
    """

    images: NDArray[np.int64]
    classes: int
    strengths: tuple[float, ...]
    at_label: Floats
    right: NDArray[np.bool_]
    starts: tuple[Solution, ...]

    @classmethod
    def of(
        cls,
        paths: Mapping[int, Sequence[Solution]],
        rows: NDArray[np.float32],
        labels: NDArray[np.int64],
        folds: Folds,
        strengths: Sequence[float],
    ) -> OutOfFold:
        """Each fold predicted by the path of fits, strongest penalty first, that was made without it."""
        tried = min((len(path) for path in paths.values()), default=0)
        at_label, right = np.zeros((tried, len(rows))), np.zeros((tried, len(rows)), dtype=bool)
        for number, path in paths.items():
            out = np.flatnonzero(folds.numbers == number)
            rows_out = rows[out]
            for row, solution in enumerate(path[:tried]):
                probabilities = metrics.softmax(solution.logits(rows_out))
                at_label[row, out] = probabilities[np.arange(len(out)), labels[out]]
                right[row, out] = probabilities.argmax(axis=1) == labels[out]
        images = np.flatnonzero(np.isin(folds.numbers, list(paths)))
        starts = tuple(next(iter(paths.values()), ()))[:tried]
        used = tuple(sorted(strengths)[:tried])
        return cls(images, int(labels.max()) + 1, used, at_label[:, images], right[:, images], starts)

    def of_first(self, count: int) -> OutOfFold:
        """The predictions of the first ``count`` images alone."""
        kept = self.images < count
        return replace(self, images=self.images[kept], at_label=self.at_label[:, kept], right=self.right[:, kept])

    def losses(self, weights: Floats | None) -> tuple[Floats, Floats]:
        """Loss (s, m) of each image, each image's share (m,) of the mean, whose sum is 1.

        An image of weight w counts as w images (``weights`` (n,), of all). It is the loss of
        :func:`tl_kit.metrics.bounded_nll`.
        """
        share = np.ones(len(self.images)) if weights is None else weights[self.images]
        images = share.sum()
        losses: Floats = -np.log((images * self.at_label + 1 / self.classes) / (images + 1))
        return losses, share / images


def out_of_fold(
    rows: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
    folds: Folds,
    *,
    weights: Floats | None = None,
    threads: int = 1,
    device: torch.device | None = None,
    config: PenaltyConfig,
) -> OutOfFold:
    """Cross-validate every strength: for each fold, fit to the others, and start from the fits of stronger penalties.

    Args:
        rows: (n, r), scaled features, in any axes that are the same for all.
        labels: (n,) in 0..classes-1.
        folds: of the images; of much work, only the first is held out.
        weights: (n,), of images.
        threads: at most; they change no bit.
        device: a GPU for much work.
    """
    most = 1 if rows.size * classes >= config.one_fold_from else None
    numbers: list[int] = folds.held_out[:most].tolist()
    device = device if rows.size * classes >= config.on_device_from else None
    # Of many rows there is one copy at a time, and the threads share the parts of a fit.
    alone = device is not None or rows.size >= config.one_thread_below
    paths_at_once = 1 if alone else max(1, min(threads, len(numbers)))
    each = threads // paths_at_once

    def path(number: int) -> list[Solution]:
        among = folds.numbers != number
        return fit_path(rows, labels, classes, among, weights=weights, threads=each, device=device, config=config)

    paths = dict(zip(numbers, side_by_side(path, numbers, threads=paths_at_once), strict=True))
    return OutOfFold.of(paths, rows, labels, folds, config.strengths)


def choose(
    found: OutOfFold, *, units: NDArray[np.int64], weights: Floats | None = None, config: PenaltyConfig
) -> int | None:
    """The position, in ``found.strengths``, of the strength to take; None where nothing was held out or converged.

    Standard errors are those of the difference to the lowest mean loss, between units: a copy of an image is no further
    evidence.

    Args:
        found: of m images.
        units: (n,) of all images, as in :class:`Folds`.
        weights: (n,), of all images.
    """
    if not found.strengths or not len(found.images):
        return None
    losses, share = found.losses(weights)
    means = losses @ share
    lowest = int(np.argmin(means))
    _, unit_of = np.unique(units[found.images], return_inverse=True)
    apart = (losses - losses[lowest] - (means - means[lowest])[:, None]) * share
    between = np.stack([np.bincount(unit_of, weights=row) for row in apart])
    errors = np.sqrt(np.square(between).sum(axis=1))
    near = means <= means[lowest] + config.errors * errors
    distances = np.abs(np.log(np.asarray(found.strengths) / config.usual))
    return int(np.argmin(np.where(near, distances, np.inf)))


def fit_path(
    rows: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
    among: NDArray[np.bool_],
    *,
    weights: Floats | None = None,
    threads: int = 1,
    device: torch.device | None = None,
    config: PenaltyConfig,
) -> list[Solution]:
    """A rough fit to the images ``among`` (n,) them for each strength, strongest penalty first.

    Each starts where the two before it point to, which halves the steps. It ends before the first that does not
    converge: weaker penalties are harder still.
    """
    rows, labels, weights = rows[among], labels[among], None if weights is None else weights[among]
    images = Images(
        rows,
        labels,
        classes,
        weights=weights,
        threads=threads,
        one_thread_below=config.one_thread_below,
        device=device,
    )
    found: list[Solution] = []
    strengths = sorted(config.strengths)
    for position, strength in enumerate(strengths):
        solution = fit_images(
            images,
            strength=strength,
            start=_onwards(found, strengths[position - 2 : position + 1]),
            tolerance=config.rough,
            max_iter=config.max_iter,
        )
        if not solution.converged:
            break
        found.append(solution)
    return found


def _onwards(found: Sequence[Solution], strengths: Sequence[float]) -> Solution | None:
    """A start at the last of three strengths: the line through the fits at the first two, over the log of strength."""
    if len(found) < 2:
        return found[-1] if found else None
    (before, last), (first, second, third) = found[-2:], np.log(strengths)
    far = min(1.0, (third - second) / max(second - first, np.finfo(np.float64).tiny))
    weight, bias = (
        end + far * (end - start) for start, end in ((before.weight, last.weight), (before.bias, last.bias))
    )
    return Solution(weight, bias, 0, False)
