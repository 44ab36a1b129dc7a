"""``--crop-mode``: the way of images into the model's square, settled once, before anything else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tl_kit.config import CROP_MODES, CropModeConfig, FinetuneConfig
from tl_kit.data.manifest import Sample, labels_of
from tl_kit.data.pixel_store import PixelStore
from tl_kit.data.splits import keys_of
from tl_kit.finetuning.choices.stage_rows import fill_stages
from tl_kit.finetuning.closed_form import head_run, is_linear
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.trunk_reuse import Reuse
from tl_kit.freezing.policies import is_auto
from tl_kit.freezing.probes import stage_names
from tl_kit.images.decode import upright_sizes
from tl_kit.machine.process_group import first_answer
from tl_kit.optimization.cases import AS_GIVEN
from tl_kit.optimization.penalty_choice import stratified_part
from tl_kit.storage.unfinished import Unfinished
from tl_kit.training.held_out import HeldOut, held_out
from tl_kit.zoo.build_model import set_crop_mode

__all__ = ["CropModeChoice", "begin_crop_mode", "held_out_head", "hides_much", "settle_crop_mode"]

_TOGETHER = "side by side"


@dataclass(frozen=True)
class CropModeChoice:
    """timm's word for the way of an image into the square, and the figures behind it.

    ``compared``: whether heads were fitted to choose it. ``offer``: a sentence about two models that see the images in
    two ways, where both together are better.
    """

    mode: str
    reason: str
    compared: bool = False
    offer: str = ""


def begin_crop_mode(config: FinetuneConfig, model: nn.Module, unfinished: Unfinished | None) -> None:
    """Write the crop mode that is known already into the model's card: the one that is given, or a resumed run's."""
    recorded = _recorded(unfinished)
    mode = recorded or (None if config.crop_mode == "auto" else config.crop_mode)
    if mode is not None:
        set_crop_mode(model, mode)


def settle_crop_mode(run: Run, *, offers: bool = False) -> CropModeChoice:
    """Under ``--crop-mode auto`` the run takes the mode that suits its images; the first process's in all of them.

    Training images alone decide (:class:`tl_kit.config.CropModeConfig`). A run that is taken up again keeps its mode.
    ``offers``: a head on the features of two modes side by side is looked at as well.
    """
    own = run.preprocessing.crop_mode
    if run.config.crop_mode != "auto":
        return CropModeChoice(own, AS_GIVEN)
    if run.resumed is not None and run.resumed.has_chosen:  # where it records no mode, it had the model's own
        return CropModeChoice(own, "as the run began")
    stores = {own: run.store}
    choice = first_answer(_choose(run, stores, offers=offers))
    _use(run, choice.mode, stores)
    if choice.compared or choice.mode != own:
        run.reporter.message(f"crop mode {choice.mode}: {choice.reason}")
    return choice


def _recorded(unfinished: Unfinished | None) -> str | None:
    found = None if unfinished is None else unfinished.settled("crop_mode")
    return found if found in CROP_MODES else None


def _use(run: Run, mode: str, stores: dict[str, PixelStore]) -> None:
    """Let the run prepare images in this mode from here on, with the pixels of it that ``stores`` has."""
    if mode == run.preprocessing.crop_mode:
        return
    if mode not in stores:
        preprocessing, device = replace(run.preprocessing, crop_mode=mode), run.store.device
        stores[mode] = PixelStore(preprocessing, run.config.store, limits=run.config.decode, device=device)
    run.images.store = stores[mode]
    set_crop_mode(run.model, mode)


def _choose(run: Run, stores: dict[str, PixelStore], *, offers: bool) -> CropModeChoice:
    config, own = run.config.crop_choice, run.preprocessing.crop_mode
    train, seed = run.manifest.split("train"), run.config.split.split_seed
    part = stratified_part(labels_of(train), config.images, least=config.folds, seed=seed)
    samples = [train[position] for position in part]
    hidden = _hidden(run, samples)
    seen = f"a centre crop hides {hidden:.0%} of the pixels"
    if hidden < config.hidden_from:
        return CropModeChoice(own, f"the model's own; {seen}")
    found = _compared(run, samples, stores, offers=offers)
    if found is not None:
        return _best(found, seen, config)
    if own != "center":
        return CropModeChoice(own, f"the model's own; there are no features to compare modes by ({seen})")
    wide = hidden >= config.squash_from
    rule = f"{seen}, {'at least' if wide else 'less than'} {config.squash_from:.0%}"
    return CropModeChoice("squash" if wide else own, f"there are no features to compare modes by, and {rule}")


def hides_much(run: Run) -> bool:
    """True where a centre crop hides so much of the images that crop modes are compared."""
    return _hidden(run, run.manifest.split("train")) >= run.config.crop_choice.hidden_from


def _hidden(run: Run, samples: Sequence[Sample]) -> float:
    """The mean share of their pixels that a centre crop leaves out; files that cannot be read are told of later."""
    samples = samples[:: math.ceil(len(samples) / run.config.crop_choice.measured)]
    sizes = upright_sizes((sample.path for sample in samples), run.config.decode)
    return float(np.mean([run.preprocessing.hidden(*size) for size in sizes])) if sizes else 0.0


def _compared(
    run: Run, samples: Sequence[Sample], stores: dict[str, PixelStore], *, offers: bool
) -> dict[str, HeldOut] | None:
    """The head's out-of-fold predictions of the images by mode, the model's own first; None where it has no such.

    With ``offers``, under ``_TOGETHER``, also those of a head on the features of all modes side by side.
    """
    if not run.weights.loaded:
        return None
    reuses: dict[str, Reuse] = {}
    for mode in dict.fromkeys((run.preprocessing.crop_mode, *run.config.crop_choice.modes)):
        _use(run, mode, stores)
        reuse = _filled(run, samples, stages=offers or is_auto(run.config.policy))
        if reuse is None:
            return None
        reuses[mode] = reuse
    present = frozenset(run.manifest.samples)
    kept = tuple(sample for sample in samples if sample in present)  # some may not have been decoded
    features = {mode: reuse.rows(kept).float().flatten(1).numpy() for mode, reuse in reuses.items()}
    found = dict[str, HeldOut]()
    if offers:
        features[_TOGETHER] = np.concatenate(list(features.values()), axis=1)
    with run.clock("train"):
        for mode, rows in features.items():
            held = held_out_head(run, rows, kept)
            first = next(iter(found.values()), held)
            if held is not None and first is not None and np.array_equal(held.images, first.images):
                found[mode] = held
    return found if found.keys() >= reuses.keys() else None


def _filled(run: Run, samples: Sequence[Sample], *, stages: bool) -> Reuse | None:
    """The head's features of the images in the run's present mode; with those of all stages if probes will ask."""
    head, reuse = head_run(run)
    if reuse is None or not is_linear(head, reuse):
        return None
    names = stage_names(run.model, most=run.config.probe.stages) if stages else []
    present = frozenset(run.manifest.samples)
    fill_stages(head, reuse, names, [sample for sample in samples if sample in present])
    return reuse


def held_out_head(run: Run, features: NDArray[np.float32], samples: tuple[Sample, ...]) -> HeldOut | None:
    """Predictions of images by heads that were fitted without them, in the folds that compare crop modes."""
    labels = labels_of(samples)
    weights = run.image_weights(labels)
    config = replace(run.config.probe, folds=run.config.crop_choice.folds)
    seed, device = run.config.split.split_seed, run.runtime.gpu
    keys = np.array(keys_of(samples, seed=seed))
    return held_out(features, labels, keys=keys, seed=seed, weights=weights, device=device, config=config)


def _figures(held: HeldOut) -> str:
    return f"{held.accuracy:.1%} (NLL {held.nll:.3f})"


def _best(found: Mapping[str, HeldOut], seen: str, config: CropModeConfig) -> CropModeChoice:
    """The mode with the most images right among those that beat the model's own by the margin; else its own."""
    own, *others = (mode for mode in found if mode != _TOGETHER)
    rival = max(others, key=lambda mode: found[mode].gain(found[own])[0])
    gain, error = found[rival].gain(found[own])
    better = gain > config.margin * error
    chosen = rival if better else own
    figures = ", ".join(f"{mode} {_figures(found[mode])}" for mode in (own, *others))
    verdict = "better" if better else "not better by more than its standard error"
    reason = f"{seen}; cross-validated {figures}: {rival} is {verdict} ({gain:+.1%} ± {error:.1%})"
    return CropModeChoice(chosen, reason, compared=True, offer=_offer(found, chosen, config))


def _offer(found: Mapping[str, HeldOut], chosen: str, config: CropModeConfig) -> str:
    """A sentence on two members and their features side by side, where that is better by the margin; or empty."""
    if _TOGETHER not in found:
        return ""
    gain, error = found[_TOGETHER].gain(found[chosen])
    if gain <= config.margin * error:
        return ""
    modes = " and ".join(mode for mode in found if mode != _TOGETHER)
    return (
        f"{modes} together: {_figures(found[_TOGETHER])} cross-validated, {gain:+.1%} ± {error:.1%} over {chosen}, at "
        "twice the time to predict: finetune with --policy head --vary crop-mode, then ensemble with --rule concat"
    )
