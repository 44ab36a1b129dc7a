"""Augmentation of a whole batch at once: a few kernels for all images, each under its own numbers.

A resize with antialiasing is linear in the rows and in the columns of an image: ``out = A x B'``, with one matrix for
the rows and one for the columns, whose entries are torchvision's (and Pillow's) triangular weights. With the matrices
of all images stacked, two batched products crop, resize and mirror a batch. Values are rounded to whole levels where
torchvision rounds them. So a view differs from that of :meth:`TrainTransform.apply` by a level here and there; the
tests say by how much.

On a CPU, torchvision's own kernels are several times as fast, because they multiply only by what is not zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_kit.images.augmentation import Drawn, Piece, TrainTransform, augment, draw_all
from tl_kit.machine.memory import in_halves
from tl_kit.machine.runtime import send

__all__ = ["Windows", "apply_batch", "gather_windows", "vary"]

_LOOKED_UP = 2**26  # pixels at a time
_NOWHERE = -1e9  # pixels: where no part of an image is
_GREY = (0.2989, 0.587, 0.114)  # of ITU-R BT.601, in the digits that torchvision has


def vary(
    images: Sequence[Tensor],
    transform: TrainTransform,
    *,
    seed: int,
    epoch: int,
    keys: Sequence[str],
    device: torch.device,
) -> Tensor:
    """Images (3, h', w'), each under its own numbers: a uint8 batch (n, 3, h, w), on ``device`` where it is a GPU."""
    if device.type != "cuda":
        return augment(images, transform, seed=seed, epoch=epoch, keys=keys)
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    drawn = draw_all(sizes, transform, seed=seed, epoch=epoch, keys=keys)

    def apply(some: Sequence[int]) -> list[Tensor]:
        return [apply_batch([images[i] for i in some], [drawn[i] for i in some], transform, device=device)]

    parts = in_halves(apply, range(len(images)))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class Windows:
    """The parts of n images that their pieces need, and where the views' rows and columns lie in them.

    For axis 0 (rows) or 1 (columns): ``low`` and ``length`` (2, n) of the part, in pixels of the image; ``centers``
    (n, view) of the view's pixels, in pixels of the part, far outside of it where the view shows nothing; ``reach``
    (2, n): how far a pixel of the view reaches to both sides, in pixels of the part. ``flips`` (n,): mirror images.
    """

    def __init__(self, pieces: Sequence[Piece], size: tuple[int, int], flips: Sequence[bool]) -> None:
        self.size = size
        numbers = np.array([(*piece.box, *piece.resized, *piece.corner) for piece in pieces], dtype=np.float64)
        starts, lengths, resized, corners = (numbers[:, i : i + 2].T for i in (0, 2, 4, 6))
        scale = lengths / resized
        self.reach = np.maximum(scale, 1).astype(np.float32)
        begin = np.maximum(corners, 0)
        end = np.minimum(corners + np.array(size)[:, None], resized)
        low = np.floor(np.maximum((begin + 0.5) * scale - self.reach, 0))
        high = np.ceil(np.minimum((end - 0.5) * scale + self.reach, lengths))
        self.low, self.length = (starts + low).astype(np.int64), (high - low).astype(np.int64)
        self.centers = [
            _centers(size[axis], corners[axis], scale[axis], low[axis], begin[axis], end[axis]) for axis in (0, 1)
        ]
        mirrored = np.array(flips)
        self.centers[1][mirrored] = self.centers[1][mirrored, ::-1]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width that hold every part."""
        return int(self.length[0].max()), int(self.length[1].max())

    def matrices(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Resampling matrices (n, view, part) of rows and of columns: the weights of the part's pixels in the view."""
        found = []
        facts = [np.stack([-1 / self.reach[axis], self.length[axis]], axis=1) for axis in (0, 1)]
        numbers = np.concatenate([self.centers[0], self.centers[1], *facts], axis=1).astype(np.float32)
        sent = send(torch.from_numpy(numbers), device)[:, :, None]
        rows, columns = self.size
        steep = {0: sent[:, -4:-3], 1: sent[:, -2:-1]}
        length = {0: sent[:, -3:-2], 1: sent[:, -1:]}
        for axis, centers in enumerate((sent[:, :rows], sent[:, rows : rows + columns])):
            part = torch.arange(self.shape[axis], device=device, dtype=torch.float32).add_(0.5)
            weights = (part - centers).abs_().mul_(steep[axis]).add_(1).clamp_(min=0).mul_(part < length[axis])
            found.append(weights.div_(weights.sum(dim=2, keepdim=True).clamp_(min=1e-6)).to(dtype))
        return found[0], found[1]


def _centers(
    size: int,
    corner: NDArray[np.float64],
    scale: NDArray[np.float64],
    low: NDArray[np.float64],
    begin: NDArray[np.float64],
    end: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(n, size), as :class:`Windows` has them for one axis; what is given (n,) is of the resized box."""
    place = corner[:, None] + np.arange(size)
    inside = (place >= begin[:, None]) & (place < end[:, None])
    return np.where(inside, (place + 0.5) * scale[:, None] - low[:, None], _NOWHERE)


def gather_windows(images: Sequence[Tensor], windows: Windows, *, pinned: bool = False) -> Tensor:
    """The parts side by side: uint8 (n, 3, *windows.shape), on the images' device; behind a part anything may stand.

    Images are uint8 (3, h', w'). ``pinned``: in memory from which a GPU reads while the CPU goes on.
    """
    height, width = windows.shape
    buffer = _common_buffer(images)
    if buffer is not None:
        return _taken(buffer, images, windows)
    out = torch.empty((len(images), 3, height, width), dtype=torch.uint8, device=images[0].device, pin_memory=pinned)
    lows, lengths = windows.low.T.tolist(), windows.length.T.tolist()
    for image, target, (top, left), (rows, columns) in zip(images, out.unbind(), lows, lengths, strict=True):
        source = image[:, top : top + rows, left : left + columns]
        target[:, :rows, :columns].copy_(source, non_blocking=True)
    return out


def _common_buffer(images: Sequence[Tensor]) -> Tensor | None:
    """The one-dimensional tensor on a device that all images are views of; None without one."""
    buffer = images[0]._base
    if buffer is None or buffer.ndim != 1 or any(image._base is not buffer for image in images):
        return None
    return buffer


def _taken(buffer: Tensor, images: Sequence[Tensor], windows: Windows) -> Tensor:
    """The parts by a single look-up: a copy for each image would take the CPU longer than it takes the GPU."""
    device, (height, width) = buffer.device, windows.shape
    facts = np.array([(image.storage_offset(), *image.shape[1:]) for image in images])
    start, plane, row = facts[:, 0], facts[:, 1] * facts[:, 2], facts[:, 2]
    lines = (start + windows.low[0] * row + windows.low[1])[:, None] + np.arange(height) * row[:, None]
    sent = send(torch.from_numpy(np.concatenate([lines, plane[:, None]], axis=1)), device)
    channel, x = torch.arange(3, device=device), torch.arange(width, device=device)
    planes = sent[:, None, :-1] + sent[:, -1:, None] * channel[:, None]
    some = max(1, _LOOKED_UP // (3 * height * width))  # places of 8 bytes take more room than the pixels
    found = [buffer.take((part[..., None] + x).clamp_(max=len(buffer) - 1)) for part in torch.split(planes, some)]
    return found[0] if len(found) == 1 else torch.cat(found)


def apply_batch(
    images: Sequence[Tensor], drawn: Sequence[Drawn], transform: TrainTransform, *, device: torch.device
) -> Tensor:
    """n images (3, h', w') under their numbers, on ``device``: a uint8 batch (n, 3, h, w).

    The images are on the device already, or on the CPU, from where they go in one copy.
    """
    pinned = device.type == "cuda" and not images[0].is_cuda
    pieces = [numbers.piece for numbers in drawn if numbers.piece is not None]
    flips = [numbers.flip for numbers in drawn]
    if pieces:
        windows = Windows(pieces, transform.size, flips)
        parts = send(gather_windows(images, windows, pinned=pinned), device)
        levels = _resample(parts, windows, torch.float16 if device.type == "cuda" else torch.float32)
    else:
        levels = send(torch.stack(list(images)), device).float()
        if any(flips):
            levels = torch.where(send(torch.tensor(flips), device)[:, None, None, None], levels.flip(-1), levels)
    levels = _coloured(levels, drawn)
    levels = _erased(levels, drawn, transform.mean)
    return levels.to(torch.uint8)


def _resample(parts: Tensor, windows: Windows, dtype: torch.dtype) -> Tensor:
    """Levels (n, 3, h, w), whole numbers in float32. Columns first, as torchvision has it.

    On a GPU the products are of float16, whose 11 bits hold all levels, and whose weights are right to 1 in 2,000.
    """
    count, channels, height, width = parts.shape
    rows, columns = windows.matrices(parts.device, dtype)
    pixels = parts.to(dtype).view(count, channels * height, width)
    across = torch.bmm(pixels, columns.transpose(1, 2)).round_().view(count, channels, height, windows.size[1])
    return torch.matmul(rows[:, None], across).float().round_().clamp_(0, 255)


def _each(values: Sequence[object], device: torch.device) -> Tensor:
    """Numbers of each image, on the device: float32 (n, ..., 1, 1)."""
    found = send(torch.tensor(values, dtype=torch.float32), device)
    return found.reshape(len(values), -1, 1, 1)


def _coloured(levels: Tensor, drawn: Sequence[Drawn]) -> Tensor:
    """Brightness and contrast in each image's own order, then lighting; rounded as torchvision does."""
    device = levels.device
    if any(numbers.brightness != 1 or numbers.contrast != 1 for numbers in drawn):
        for wanted in (False, True):  # brightness before contrast, then the images that have it after contrast
            factors = [numbers.brightness if numbers.contrast_first == wanted else 1.0 for numbers in drawn]
            if not wanted or any(numbers.contrast_first for numbers in drawn):
                levels = (levels * _each(factors, device)).clamp_(0, 255).floor_()
            if not wanted:
                levels = _contrasted(levels, _each([numbers.contrast for numbers in drawn], device))
    if any(numbers.shift is not None for numbers in drawn):
        shifts = [numbers.shift or (0.0, 0.0, 0.0) for numbers in drawn]
        levels = (levels + _each(shifts, device)).round_().clamp_(0, 255)
    return levels


def _contrasted(levels: Tensor, factors: Tensor) -> Tensor:
    red, green, blue = levels.unbind(1)
    grey = (red * _GREY[0] + green * _GREY[1] + blue * _GREY[2]).floor_()
    mean = grey.mean(dim=(1, 2))[:, None, None, None]
    return (levels * factors + mean * (1 - factors)).clamp_(0, 255).floor_()


def _erased(levels: Tensor, drawn: Sequence[Drawn], mean: Sequence[int]) -> Tensor:
    if not any(numbers.erased is not None for numbers in drawn):
        return levels
    device, (height, width) = levels.device, levels.shape[2:]
    boxes = send(torch.tensor([numbers.erased or (0, 0, 0, 0) for numbers in drawn]), device)
    top, left, rows, columns = (each[:, None] for each in boxes.unbind(1))
    row, column = torch.arange(height, device=device), torch.arange(width, device=device)
    inside = ((row >= top) & (row < top + rows))[:, :, None] & ((column >= left) & (column < left + columns))[:, None]
    colour = send(torch.tensor(mean, dtype=levels.dtype), device).view(3, 1, 1)
    return torch.where(inside[:, None], colour, levels)
