"""Tensor loading: the backbone's tensors come from a file, the classifier is always new."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tl_kit.errors import WeightsError, first_line
from tl_kit.zoo.heads import classifier_names, in_modules
from tl_kit.zoo.silence_timm import quiet
from tl_kit.zoo.timm_factory import CheckpointFilter
from tl_kit.zoo.unwrap import unprefixed

__all__ = ["Fit", "fit"]

# If a smaller share of tensors is common, on either side, file and model are different architectures: ResNet-18 and
# ResNet-34 share more than half of their names and shapes.
MIN_SHARED = 0.9
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Fit:
    """Tensor names. ``loaded`` and ``reinitialised`` are names in the model; ``skipped`` are names only in the file.

    BatchNorm's step counters appear only in ``loaded``, if the file has them. ``prefix``: the prefix of the names in
    the file, which was removed.
    """

    loaded: tuple[str, ...]
    reinitialised: tuple[str, ...]
    skipped: tuple[str, ...]
    prefix: str = ""


def fit(model: nn.Module, content: dict[str, Any], filter_fn: CheckpointFilter, *, label: str) -> Fit:
    """Load the backbone's tensors in place; the classifier keeps its drawn tensors, whatever the file contains.

    ``label`` names the file in messages. Raises WeightsError if the file is of another architecture, or if a tensor has
    another shape, another kind of numbers or a non-finite value; the model is then unchanged.
    """
    own = model.state_dict()
    heads = classifier_names(model)
    tensors, prefix = _converted(model, content, filter_fn, label)
    placed = {name: value for name, value in tensors.items() if name in own and not in_modules(name, heads)}
    skipped = [name for name in tensors if name not in own]
    _check_architecture(model, placed, skipped, heads, label)
    if prefix:  # tensors without the prefix belong to something else in the file
        skipped += [n for n, v in content.items() if isinstance(v, Tensor) and not n.startswith(f"{prefix}.")]
    _check_tensors(model, placed, own, label)
    model.load_state_dict(placed, strict=False)
    fresh = [name for name in own if name not in placed and not name.endswith(_COUNTER)]
    return Fit(loaded=tuple(placed), reinitialised=tuple(fresh), skipped=tuple(skipped), prefix=prefix)


def _converted(
    model: nn.Module, content: dict[str, Any], filter_fn: CheckpointFilter, label: str
) -> tuple[dict[str, Tensor], str]:
    """The tensors under the model's names, and the prefix removed for that: none if enough names fit without removal.

    timm's filters come first: some look for names with a prefix.
    """
    needed = _needed(model)
    found: list[tuple[int, dict[str, Tensor], str]] = []
    failures = []
    for prefix, tensors in _candidates(content, model, label):
        try:
            converted = _convert(model, tensors, filter_fn, label)
        except WeightsError as error:
            failures.append(error)
            continue
        found.append((sum(name in converted for name in needed), converted, prefix))
        if found[-1][0] >= MIN_SHARED * len(needed):
            break
    if not found:
        raise failures[0]
    _, tensors, prefix = max(found, key=lambda each: each[0])  # of equally good ones the first
    return tensors, prefix


def _candidates(content: dict[str, Any], model: nn.Module, label: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "", content
    yield from unprefixed(content, model.state_dict().keys(), label)


def _needed(model: nn.Module) -> list[str]:
    """The tensor names below the classifier, without BatchNorm's step counters."""
    heads = classifier_names(model)
    return [n for n in model.state_dict() if not in_modules(n, heads) and not n.endswith(_COUNTER)]


def _convert(model: nn.Module, content: dict[str, Any], filter_fn: CheckpointFilter, label: str) -> dict[str, Tensor]:
    try:
        with quiet():
            converted = filter_fn(dict(content), model)
    except Exception as error:
        raise WeightsError(f"{label}: timm cannot convert these tensors for the model ({first_line(error)})") from error
    return {name: value for name, value in converted.items() if isinstance(value, Tensor)}


def _check_architecture(
    model: nn.Module, placed: Collection[str], skipped: Sequence[str], heads: tuple[str, ...], label: str
) -> None:
    needed = _needed(model)
    missing = [name for name in needed if name not in placed]
    # Unused tensors of a part that the model has too (a deeper stage) indicate a larger model of the same family. Those
    # of other parts (a decoder, a text tower) do not matter.
    parts = {name for name, _ in model.named_children()}
    stray = [n for n in skipped if n.split(".")[0] in parts and not in_modules(n, heads) and not n.endswith(_COUNTER)]
    here = len(needed) - len(missing)
    if here < MIN_SHARED * len(needed):
        raise WeightsError(
            f"{label}: not of this architecture: it holds {here} of the {len(needed)} tensors below the classifier, "
            f"missing {_few(missing)}" + (f", having instead {_few(skipped)}" if skipped else "")
        )
    if here < MIN_SHARED * (here + len(stray)):
        raise WeightsError(
            f"{label}: of a larger architecture: {len(stray)} of its tensors have no place, such as {_few(stray)}"
        )


def _check_tensors(model: nn.Module, placed: dict[str, Tensor], own: dict[str, Tensor], label: str) -> None:
    wrong = [name for name, value in placed.items() if value.shape != own[name].shape]
    if wrong:
        shown = [f"{n} {tuple(placed[n].shape)} in the file, {tuple(own[n].shape)} in the model" for n in wrong]
        raise WeightsError(f"{label}: {len(wrong)} tensors have another shape: {_few(shown, separator='; ')}")
    foreign = [n for n, v in placed.items() if v.is_floating_point() != own[n].is_floating_point() or v.is_complex()]
    if foreign:
        shown = [f"{n} {str(placed[n].dtype).removeprefix('torch.')}" for n in foreign]
        raise WeightsError(f"{label}: {len(foreign)} tensors are of a type that weights do not have: {_few(shown)}")
    broken = [n for n, value in placed.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())]
    if broken:
        raise WeightsError(f"{label}: {len(broken)} tensors hold NaN or infinity, such as {_few(broken)}")


def _few(names: Sequence[str], *, separator: str = ", ") -> str:
    return separator.join(names[:3]) + (" …" if len(names) > 3 else "")
