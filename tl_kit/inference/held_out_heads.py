"""Held-out heads: no validation image is scored by a head, or a network, that was fitted to it.

A run with a head in closed form fits it to the validation images too, once its penalty is chosen; a refit of ``fit``
trains a whole network on them. The folder keeps the tensors from before. They stand for the final ones wherever
validation images are scored, or choose something: the rule of an ensemble, its weights, a temperature.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tl_kit.data.manifest import Sample
from tl_kit.inference.predictor import Predictor
from tl_kit.reporting import SILENT, Reporter
from tl_kit.storage.checkpoint import digest_prefix, load_checkpoint, refit_digests

__all__ = ["as_scored_on", "fitted_images", "held_out_probabilities", "with_held_out_heads"]


def fitted_images(predictor: Predictor) -> frozenset[str]:
    """The validation images, by digest, that a member was fitted to in the end."""
    return frozenset[str]().union(*(refit_digests(member.meta) for member in predictor.members))


def with_held_out_heads(predictor: Predictor) -> Predictor:
    """The same predictor with the heads, or networks, that its members' runs fitted without validation images.

    It is the same object if no member has others. Raises CheckpointError if a member's file is missing or broken.
    """
    if not fitted_images(predictor):
        return predictor
    members = tuple(load_checkpoint(member.path, mapped=True, held_out=True) for member in predictor.members)
    scorers = tuple(replace(s, model=m.model) for s, m in zip(predictor.scorers, members, strict=True))
    return replace(predictor, members=members, scorers=scorers)


def as_scored_on(predictor: Predictor, samples: Iterable[Sample]) -> Predictor:
    """The predictor that may be scored on these images: with held-out heads if a member was fitted to one of them.

    It is the same object otherwise. Errors as for :func:`with_held_out_heads`.
    """
    unseen = fitted_images(predictor).isdisjoint(map(digest_prefix, samples))
    return predictor if unseen else with_held_out_heads(predictor)


def held_out_probabilities(
    predictor: Predictor, samples: Sequence[Sample], *, reporter: Reporter = SILENT
) -> tuple[NDArray[np.float64], dict[int, str]]:
    """As :meth:`Predictor.member_probabilities`, by held-out heads on images that a member's final head was fitted to.

    All members then predict such an image by their held-out heads.
    """
    fitted = fitted_images(predictor)
    apart = [index for index, sample in enumerate(samples) if digest_prefix(sample) in fitted]
    stack = np.empty((len(predictor.members), len(samples), len(predictor.classes)))
    failures: dict[int, str] = {}
    rest = sorted(set(range(len(samples))).difference(apart))
    if apart:
        reporter.message(
            f"{len(apart):,} of the {len(samples):,} images are scored by models that were fitted without them: the "
            "final ones were fitted to them too"
        )
    for indices, used in ((rest, predictor), (apart, with_held_out_heads(predictor) if apart else predictor)):
        if not indices:
            continue
        chosen = [samples[index] for index in indices]
        found, failed = used.member_probabilities(
            [sample.path for sample in chosen], digests=[sample.digest for sample in chosen], reporter=reporter
        )
        stack[:, indices] = found
        failures |= {indices[place]: reason for place, reason in failed.items()}
    return stack, failures
