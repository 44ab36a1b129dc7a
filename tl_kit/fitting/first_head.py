"""The first head, without which a fit has no result: its price, and the sample of images that the time allows."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, replace

from tl_kit.config import BudgetConfig, FinetuneConfig
from tl_kit.data.manifest import Manifest, in_order, labels_of
from tl_kit.fitting.budget import Budget
from tl_kit.fitting.prices import FIXED, Admission
from tl_kit.optimization.penalty_choice import stratified_part
from tl_kit.planning.head_passes import HeadPasses, head_passes
from tl_kit.reporting import Reporter

__all__ = ["FirstHead", "sampled"]

_LEAST = 2  # training images of a class in a sample


@dataclass
class FirstHead:
    """The price of a fit's first head, on all its images (``manifest``) or on a sample of the training images."""

    manifest: Manifest
    budget: Budget
    config: BudgetConfig

    def admit(self, options: FinetuneConfig, reporter: Reporter) -> Admission:
        """Decide by a trial on a few images; ``sample`` has the number of training images that there is time for.

        It is 0 where not even two images of each class have time. The test images, which the end predicts, count too.
        Where only the comparison of crop modes has no time, ``crop_mode`` has the network's own.
        """
        if self.budget.total is None:
            return Admission(admitted=True)
        passes = head_passes(self.manifest, options, reporter=reporter)
        if passes is None:
            return Admission(admitted=self.budget.left > 0)
        train, margin = len(self.manifest.split("train")), self.config.first_margin
        seconds = self._seconds(passes, train) + passes.compared * passes.row
        tests = self._tests(passes)
        if margin * (seconds + tests) <= self.budget.left:
            return Admission(admitted=True, seconds=seconds, needed=margin * (seconds + tests))
        counts = Counter(labels_of(self.manifest.split("train")).tolist())
        sizes = sorted({_size(counts, most) for most in (*range(1, train, max(1, train // 1000)), train)})
        allowed = [n for n in sizes if margin * (self._seconds(passes, n) + tests) <= self.budget.left]
        least = self._seconds(passes, sizes[0]) + tests
        smallest = sizes[0] if least <= self.budget.left else 0  # without a margin: else there is no result at all
        sample = max(allowed, default=smallest)
        return Admission(
            admitted=False,
            needed=margin * (seconds + tests),
            sample=sample,
            crop_mode=passes.own if sample == train and passes.compared else None,
            least=self.budget.elapsed + self.budget.reserve + margin * least,
        )

    def _seconds(self, passes: HeadPasses, images: int) -> float:
        """Seconds of a head on ``images`` training images: the passes, and fits that take longer with more classes."""
        share = passes.train / len(self.manifest.split("train"))  # of them that the cache does not have
        fits = min(1.0, self.config.fits + self.config.fits_class * len(self.manifest.classes))
        return FIXED + passes.row * (images * (share + fits) + passes.val)

    def _tests(self, passes: HeadPasses) -> float:
        return passes.row * len(self.manifest.split("test"))


def _size(counts: Counter[int], most: int) -> int:
    """Number of images of :func:`stratified_part`."""
    share = min(1.0, most / counts.total())
    return sum(min(count, max(_LEAST, round(share * count))) for count in counts.values())


def sampled(manifest: Manifest, images: int, *, seed: int) -> Manifest:
    """The manifest of a sample: at most ``images`` training images in the classes' proportions, and all other images.

    Each class keeps two training images at least, which may be more than ``images`` in all.
    """
    train = manifest.split("train")
    labels = labels_of(train)
    counts = Counter(labels.tolist())
    most = max(1, bisect_right(range(1, images + 1), images, key=lambda most: _size(counts, most)))
    part = stratified_part(labels, most, least=_LEAST, seed=seed)
    others = (sample for sample in manifest.samples if sample.split != "train")
    return replace(manifest, samples=in_order([*(train[position] for position in part), *others]))
