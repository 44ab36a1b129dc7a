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

__all__ = ["Windows", "apply_batch", "gather_windows", "vary"]

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
    return apply_batch(images, drawn, transform, device=device)


class Windows:
    """The parts of n images that their pieces need, and where the views' rows and columns lie in them.

    For axis 0 (rows) or 1 (columns), all of shape (n,): ``low`` and ``length`` of the part, in pixels of the image;
    ``scale``: pixels of the image for one of the view; ``first``: the place in the part, in pixels, of the view's
    first one; ``inside`` (n, 2): the first and the last but one of the view's pixels that show anything of the image.
    """

    def __init__(self, pieces: Sequence[Piece], size: tuple[int, int]) -> None:
        self.size = size
        boxes = np.array([piece.box for piece in pieces], dtype=np.float64)
        resized = np.array([piece.resized for piece in pieces], dtype=np.float64)
        corners = np.array([piece.corner for piece in pieces], dtype=np.float64)
        self.low, self.length = np.empty((2, len(pieces)), np.int64), np.empty((2, len(pieces)), np.int64)
        self.scale, self.first = np.empty((2, len(pieces))), np.empty((2, len(pieces)))
        self.inside = np.empty((2, len(pieces), 2))
        for axis in (0, 1):
            self._place(axis, boxes[:, axis], boxes[:, 2 + axis], resized[:, axis], corners[:, axis])

    def _place(
        self,
        axis: int,
        start: NDArray[np.float64],
        length: NDArray[np.float64],
        resized: NDArray[np.float64],
        corner: NDArray[np.float64],
    ) -> None:
        scale = length / resized
        begin, end = np.maximum(corner, 0), np.minimum(corner + self.size[axis], resized)
        reach = np.maximum(scale, 1)
        low = np.floor(np.maximum((begin + 0.5) * scale - reach, 0))
        high = np.ceil(np.minimum((end - 0.5) * scale + reach, length))
        self.low[axis], self.length[axis] = start + low, high - low
        self.scale[axis], self.first[axis] = scale, (corner + 0.5) * scale - low
        self.inside[axis] = np.stack([begin - corner, end - corner], axis=1)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width that hold every part."""
        return int(self.length[0].max()), int(self.length[1].max())

    def matrix(self, axis: int, device: torch.device, dtype: torch.dtype, flips: Tensor | None = None) -> Tensor:
        """Weights (n, view, part) of the part's pixels in those of the view; rows of 0 where the view shows nothing."""
        scale, first = (_column(values[axis], device) for values in (self.scale, self.first))
        begin, end = (_column(self.inside[axis][:, side], device) for side in (0, 1))
        view = torch.arange(self.size[axis], device=device, dtype=torch.float32)[None, :, None]
        if flips is not None:
            view = torch.where(flips[:, None, None], self.size[axis] - 1 - view, view)
        part = torch.arange(self.shape[axis], device=device, dtype=torch.float32)[None, None, :] + 0.5
        weights = (1 - (part - (first + view * scale)).abs() / scale.clamp(min=1)).clamp_(min=0)
        weights *= (part < _column(self.length[axis], device)) & (view >= begin) & (view < end)
        return (weights / weights.sum(dim=2, keepdim=True).clamp_(min=1e-6)).to(dtype)


def _column(values: NDArray[np.floating] | NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device, non_blocking=True)[:, None, None]


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
    facts = [(image.storage_offset(), image.shape[1] * image.shape[2], image.shape[2]) for image in images]
    places = torch.from_numpy(np.concatenate([np.array(facts), windows.low.T], axis=1)).to(device, non_blocking=True)
    start, plane, row, top, left = (column[:, None, None, None] for column in places.unbind(1))
    channel, y, x = (torch.arange(count, device=device) for count in (3, height, width))
    at = start + channel[:, None, None] * plane + (top + y[:, None]) * row + (left + x)
    return buffer.take(at.clamp_(max=len(buffer) - 1))


def apply_batch(
    images: Sequence[Tensor], drawn: Sequence[Drawn], transform: TrainTransform, *, device: torch.device
) -> Tensor:
    """n images (3, h', w') under their numbers, on ``device``: a uint8 batch (n, 3, h, w).

    The images are on the device already, or on the CPU, from where they go in one copy.
    """
    pinned = device.type == "cuda" and not images[0].is_cuda
    flips = _flags([numbers.flip for numbers in drawn], device)
    pieces = [numbers.piece for numbers in drawn if numbers.piece is not None]
    if pieces:
        windows = Windows(pieces, transform.size)
        parts = gather_windows(images, windows, pinned=pinned).to(device, non_blocking=True)
        levels = _resample(parts, windows, flips, torch.float16 if device.type == "cuda" else torch.float32)
    else:
        whole = torch.stack(list(images))
        levels = (whole.pin_memory() if pinned else whole).to(device, non_blocking=True).float()
        levels = levels if flips is None else torch.where(flips[:, None, None, None], levels.flip(-1), levels)
    levels = _coloured(levels, drawn)
    levels = _erased(levels, drawn, transform.mean)
    return levels.to(torch.uint8)


def _resample(parts: Tensor, windows: Windows, flips: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Levels (n, 3, h, w), whole numbers in float32. Columns first, as torchvision has it.

    On a GPU the products are of float16, whose 11 bits hold all levels, and whose weights are right to 1 in 2,000; the
    sums are of float32.
    """
    count, channels, height, width = parts.shape
    pixels = parts.to(dtype).view(count, channels * height, width)
    columns = windows.matrix(1, parts.device, dtype, flips).transpose(1, 2)
    across = torch.bmm(pixels, columns).round_().view(count, channels, height, windows.size[1])
    return torch.matmul(windows.matrix(0, parts.device, dtype)[:, None], across).float().round_().clamp_(0, 255)


def _flags(values: Sequence[bool], device: torch.device) -> Tensor | None:
    """(n,) on the device; None where none is set."""
    return torch.tensor(values).to(device, non_blocking=True) if any(values) else None


def _each(values: Sequence[object], device: torch.device) -> Tensor:
    """Numbers of each image, on the device: float32 (n, ..., 1, 1)."""
    found = torch.tensor(values, dtype=torch.float32).to(device, non_blocking=True)
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
    boxes = torch.tensor([numbers.erased or (0, 0, 0, 0) for numbers in drawn]).to(device, non_blocking=True)
    top, left, rows, columns = (each[:, None] for each in boxes.unbind(1))
    row, column = torch.arange(height, device=device), torch.arange(width, device=device)
    inside = ((row >= top) & (row < top + rows))[:, :, None] & ((column >= left) & (column < left + columns))[:, None]
    colour = torch.tensor(mean, dtype=levels.dtype, device=device).view(3, 1, 1)
    return torch.where(inside[:, None], colour, levels)
