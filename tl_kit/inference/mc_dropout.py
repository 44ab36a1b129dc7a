"""Monte Carlo dropout (Gal & Ghahramani 2016): dropout stays active in evaluation, everything else is unchanged.

timm applies dropout in modules (ViT, ConvNeXt) or by calls in its forward passes (ResNet, EfficientNet); all of these
call ``torch.nn.functional.dropout``, where the noise is inserted. No module changes its mode: BatchNorm, stochastic
depth and DropBlock stay in evaluation mode. An image's noise depends on the seed, the image's content, the number of
the pass and the place in the network, not on the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tl_kit.config import McDropoutConfig

__all__ = ["DropoutSites", "McDropout", "find_dropout", "image_keys"]

_CHANNELWISE = (functional.dropout1d, functional.dropout2d, functional.dropout3d)
_PROOF_SEED = 0
_TINY = torch.finfo(torch.float64).tiny
_UNLIKE = (RuntimeError, TypeError, ValueError, IndexError, AttributeError, AssertionError)


@dataclass(frozen=True)
class DropoutSites:
    """The active calls of dropout, by their number in a forward pass.

    ``late``: the network before them needs to run only once for any number of passes.
    """

    active: frozenset[int]
    late: bool


@dataclass(frozen=True)
class McDropout:
    """``passes`` forward passes of a model with dropout: images (n, c, h, w) -> logarithms of the mean probabilities.

    The result (n, classes), float64 on the CPU, is the logarithm of the mean softmax of the passes, so its softmax is
    that mean. ``keys`` are digests of the images. The precision of the surrounding context applies.
    """

    passes: int
    sites: DropoutSites
    config: McDropoutConfig = McDropoutConfig()

    @property
    def forward_passes(self) -> int:
        """Number of passes through the network's body."""
        return 1 if self.sites.late else self.passes

    def __call__(self, model: nn.Module, images: Tensor, keys: Sequence[bytes]) -> Tensor:
        total = torch.zeros(())
        at_once = max(1, self.config.rows // len(images)) if self.sites.late else 1
        for first in range(0, self.passes, at_once):
            numbers = range(first, min(first + at_once, self.passes))
            logits = _stochastic(model, images, keys, numbers, self.sites, self.config.seed)
            total = total + logits.cpu().double().softmax(dim=-1).sum(dim=0)
        return (total / self.passes).clamp_min(_TINY).log()


def image_keys(pixels: Tensor) -> list[bytes]:
    """A digest of each image's pixels, uint8 (n, c, h, w)."""
    return [hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in pixels.cpu().contiguous()]


def find_dropout(model: nn.Module, input_size: Sequence[int]) -> DropoutSites:
    """Find the dropout sites of a model in eval mode by running it on noise of ``input_size`` (c, h, w).

    A call counts if its rate is above 0 and it has one row per image. Noise on positions or weights that all images
    share does not count.
    """
    generator = torch.Generator().manual_seed(_PROOF_SEED)
    device = next(model.parameters()).device
    images = torch.randn((3, *input_size), generator=generator).to(device)
    with torch.inference_mode():
        two, three = _calls(model, images[:2]), _calls(model, images)
        pairs = enumerate(zip(two, three, strict=True))
        active = frozenset(i for i, ((p, n), (_, m)) in pairs if p > 0 and n > 0 and 3 * n == 2 * m)
        late = bool(active) and _runs_late(model, images[:2], active)
    return DropoutSites(active, late)


def _calls(model: nn.Module, images: Tensor) -> list[tuple[float, int]]:
    """Rate and number of rows of every call of dropout in a forward pass."""
    found: list[tuple[float, int]] = []

    def note(_number: int, rows: Tensor, p: float, _shape: Sequence[int]) -> Tensor:
        found.append((p, len(rows) if rows.ndim > 1 else 0))
        return rows

    with _Dropouts(note):
        model(images)
    return found


def _runs_late(model: nn.Module, images: Tensor, active: frozenset[int]) -> bool:
    """True if repeating rows at the first dropout gives the same outputs as repeating the whole network."""
    keys = [bytes([number]) for number in range(len(images))]
    whole = _stochastic(model, images, keys, range(2), DropoutSites(active, late=False), _PROOF_SEED)
    try:
        found = _stochastic(model, images, keys, range(2), DropoutSites(active, late=True), _PROOF_SEED)
    except _UNLIKE:  # repeated rows met rows that were not repeated
        return False
    allowed = 1e-4 * max(1.0, float(whole.abs().max()))
    return found.shape == whole.shape and torch.allclose(found, whole, rtol=0, atol=allowed)


def _stochastic(
    model: nn.Module, images: Tensor, keys: Sequence[bytes], numbers: range, sites: DropoutSites, seed: int
) -> Tensor:
    """Outputs (passes, n, classes) of the passes ``numbers``; a single image runs as two rows, as in all inference."""
    count = len(keys)
    if count == 1:
        images, keys = torch.cat([images, images]), [*keys, *keys]
    if sites.late:
        with _Dropouts(_Noise(keys, numbers, sites.active, seed)):
            outputs: Tensor = model(images)
        return outputs.reshape(len(numbers), len(keys), -1)[:, :count]
    found = []
    for number in numbers:
        with _Dropouts(_Noise(keys, range(number, number + 1), sites.active, seed)):
            found.append(model(images)[:count])
    return torch.stack(found)


@dataclass(frozen=True)
class _Noise:
    """Applies dropout to the rows of the images ``keys``, for each of the passes ``numbers`` in turn."""

    keys: Sequence[bytes]
    numbers: range
    active: frozenset[int]
    seed: int

    def __call__(self, number: int, rows: Tensor, p: float, shape: Sequence[int]) -> Tensor:
        """``shape``: the shape of the noise for ``rows``."""
        if number not in self.active:
            return rows
        images, passes = len(self.keys), len(self.numbers)
        if passes > 1 and len(rows) == images:  # here the rows are repeated for each pass
            rows = rows.repeat(passes, *(1 for _ in rows.shape[1:]))
        each, rest = divmod(len(rows), images * passes)
        if rest:
            raise RuntimeError(f"{len(rows)} rows at a dropout of {images} images in {passes} passes")
        if p >= 1:
            return torch.zeros_like(rows)
        drawn = [self._draw(key, turn, number, (each, *shape[1:])) for turn in self.numbers for key in self.keys]
        kept = torch.cat(drawn).to(rows.device) >= p
        return rows * kept.to(rows.dtype) / (1 - p)

    def _draw(self, key: bytes, turn: int, number: int, shape: Sequence[int]) -> Tensor:
        text = b"/".join([str(self.seed).encode(), key, str(turn).encode(), str(number).encode()])
        digest = hashlib.blake2b(text, digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
        return torch.rand(shape, generator=generator)


class _Dropouts(TorchFunctionMode):
    """A mode in which every call of dropout goes to ``act(number, rows, p, shape of the noise)``."""

    def __init__(self, act: Callable[[int, Tensor, float, Sequence[int]], Tensor]) -> None:
        super().__init__()
        self._act = act
        self._number = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        channelwise = func in _CHANNELWISE
        if func is not functional.dropout and not channelwise:
            return func(*args, **kwargs)
        rows, p = _arguments(*args, **kwargs)
        number, self._number = self._number, self._number + 1
        shape = (*rows.shape[:2], *(1 for _ in rows.shape[2:])) if channelwise else tuple(rows.shape)
        return self._act(number, rows, p, shape)


def _arguments(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> tuple[Tensor, float]:
    """Input and rate from the arguments of torch's dropout functions; ``training`` and ``inplace`` are ignored."""
    return input, float(p)
