"""A forward pass in inference: in smaller batches if memory runs out, in fp32 if bf16 overflows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tl_kit.errors import ResourceError
from tl_kit.machine.memory import is_out_of_memory, release_memory
from tl_kit.reporting import note

__all__ = ["filled_up", "forward_rows"]

_ADVICE = "choose a smaller model, or close other programs"
# The maximal number of rows in a pass, for each network for which memory ran out.
_MOST: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def forward_rows(
    model: Callable[[Tensor], Tensor], images: Tensor, *, rows: int | None = None, whole: bool = False
) -> Tensor:
    """The model's output for a batch (n, ...), n > 0; a batch of one is run as two.

    On a CPU, torch multiplies a single row with other kernels than several rows, with other rounding: a single image
    would get other digits than the same image in a batch. A GPU has other kernels for many shapes, and takes long to
    load one: with ``rows`` every pass has so many, the last one filled up with copies of its last row.

    If memory runs out, this model's batches are halved from then on. Rows that are not finite under an autocast are
    computed again without it. ``whole``: neither is done, for a caller that observes the pass. Raises ResourceError if
    memory is too small for two rows.
    """
    if whole:
        return model(filled_up(images, 2))[: len(images)]
    return _widened(model, images, _divided(model, images, rows))


def _divided(model: Callable[[Tensor], Tensor], images: Tensor, rows: int | None) -> Tensor:
    wanted = len(images) if rows is None else rows
    while True:
        most = min(_MOST.get(model, wanted), wanted)
        try:
            least = 2 if rows is None else most
            found = [model(filled_up(piece, least))[: len(piece)] for piece in torch.split(images, most)]
            return torch.cat(found) if len(found) > 1 else found[0]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if most <= 2:
                raise ResourceError(f"memory ran out with {most} images in one pass: {_ADVICE}") from error
            _MOST[model] = math.ceil(most / 2)
        note(f"memory ran out with {most} images in one pass: {math.ceil(most / 2)} images per pass from now on")
        release_memory()


def filled_up(images: Tensor, rows: int | None) -> Tensor:
    """A batch (n, ...) of ``rows`` at least, filled up with copies of its last row; None: as it is."""
    if rows is None or len(images) >= rows:
        return images
    return torch.cat([images, images[-1:].expand(rows - len(images), *images.shape[1:])])


def _widened(model: Callable[[Tensor], Tensor], images: Tensor, output: Tensor) -> Tensor:
    """The output, with rows that are not finite computed again in fp32."""
    kind = images.device.type
    if not torch.is_autocast_enabled(kind) or not isinstance(output, Tensor):
        return output
    broken = ~torch.isfinite(output).flatten(1).all(dim=1)
    count = int(broken.sum())
    if not count:
        return output
    with torch.autocast(kind, enabled=False):
        again = forward_rows(model, images[broken].float())
    note("in bf16, outputs of some images are not finite: these are computed in fp32")
    mended = output.clone()
    mended[broken] = again.to(output.dtype)
    return mended
