"""Options of a fit's runs: what all of them share, and what each step adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tl_kit.config import FinetuneConfig, FitConfig
from tl_kit.data.manifest import Sample
from tl_kit.fitting.candidates import Candidate, candidate_of
from tl_kit.fitting.ladder import Step
from tl_kit.planning.training_side import longer_side, training_side
from tl_kit.zoo.forward_cost import takes_side
from tl_kit.zoo.names import resolve

__all__ = ["StepOptions", "options_of"]

_ANY_NETWORK = "tf_efficientnet_lite0"  # each step names its own


def options_of(config: FitConfig) -> FinetuneConfig:
    """The options that all runs share."""
    return FinetuneConfig(
        model=_ANY_NETWORK,
        data=config.data,
        img_size=config.img_size,
        augment_options=config.augment_options,
        seed=config.seed,
        split=config.split,
        allow=config.allow,
        strict=config.strict,
        decode=config.decode,
        cache=config.cache,
        runtime=config.runtime,
        store=config.store,
    )


@dataclass(frozen=True)
class StepOptions:
    """Options of each step's run, on these training images. Small images train at a smaller size (``SideConfig``)."""

    config: FitConfig
    candidates: Sequence[Candidate]
    samples: Sequence[Sample]

    def of(self, step: Step) -> FinetuneConfig:
        """The step's options. Raises the errors of a network's name.

        The head of a sample takes the network's own crop mode: to compare modes needs a second pass over the images. A
        head guard compares networks by what they are without validation images, on which a refit may train each.
        """
        shared = options_of(self.config)
        if step.images:
            shared = replace(shared, crop_choice=replace(shared.crop_choice, hidden_from=1.0))
        return replace(
            shared,
            model=step.model,
            seed=step.seed,
            crop_mode=step.crop_mode or "auto",
            img_size=self._smaller(step) or self.config.img_size,
            augment_options=shared.augment_options if step.trains else (),
            guard=replace(shared.guard, refitted=False),
        )

    @cached_property
    def _longer_side(self) -> int | None:
        """Pixels that most images' longer side does not exceed; None where no image can be read."""
        return longer_side(self.samples, self.config.side, decode=self.config.decode)

    def _smaller(self, step: Step) -> int | None:
        """Pixels a side at which the step trains, where that is less than the network's own size."""
        if self.config.img_size is not None or not step.trains or resolve(step.model).sized:
            return None
        if self._longer_side is None:
            return None
        own = candidate_of(self.candidates, step.model).cost.side
        side = training_side(self._longer_side, own, self.config.side)
        return side if side < own and takes_side(step.model, side) else None
