"""The loss of a softmax regression on a GPU: the images stay there, weights go there and gradients come back."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["DevicePart", "is_exact"]

_TOGETHER = 4096  # rows squared at a time: a second copy of all might not fit

Rows = NDArray[np.float32] | NDArray[np.float64]


def is_exact(device: torch.device) -> bool:
    """True where products are as exact as NumPy's: Apple's GPUs have no float64, and TF32 has three digits.

    torch multiplies float32 in TF32 only where a program asks for it.
    """
    return device.type != "mps" and torch.get_float32_matmul_precision() == "highest"


class DevicePart:
    """Loss and gradient of all images on a device, in the images' precision, by the methods of a part in NumPy.

    Args:
        rows: (n, r).
        labels: (n,).
        share: (n,), of the images in the loss.
        classes: k.

    Raises torch.OutOfMemoryError where there is no room.
    """

    def __init__(
        self, rows: Rows, labels: NDArray[np.int64], share: NDArray[np.float64], classes: int, device: torch.device
    ) -> None:
        images, axes = rows.shape
        self.rows = torch.ones((images, axes + 1), dtype=torch.from_numpy(rows[:0]).dtype, device=device)
        self.rows[:, :-1] = torch.from_numpy(np.ascontiguousarray(rows)).to(device)
        self.labels = torch.from_numpy(labels).to(device)[:, None]
        self.share = torch.from_numpy(share).to(device)
        self.narrow = self.share.to(self.rows.dtype)[:, None]
        self.targets = torch.zeros((images, classes), dtype=self.rows.dtype, device=device)
        self.targets.scatter_(1, self.labels, 1.0)
        self.probabilities = self.targets

    def spread(self) -> NDArray[np.float64]:
        """The mean square of each column (r + 1,)."""
        parts = [slice(start, start + _TOGETHER) for start in range(0, len(self.rows), _TOGETHER)]
        sums = [(self.narrow[part, 0] @ self.rows[part].square()).double() for part in parts]
        return _array(torch.stack(sums).sum(dim=0))

    def evaluate(self, weights: Rows) -> tuple[float, Rows]:
        """The loss, and the gradient (k, r + 1) by weights (k, r + 1)."""
        logs = torch.log_softmax(self.rows @ self._there(weights).T, dim=1)
        self.probabilities = logs.exp()
        gradient = ((self.probabilities - self.targets) * self.narrow).T @ self.rows
        losses = -logs.gather(1, self.labels)[:, 0]
        return float(self.share @ losses.double()), _array(gradient)

    def product(self, direction: Rows) -> Rows:
        """The Hessian, where the loss was evaluated last, times a direction: both (k, r + 1)."""
        along = self.rows @ self._there(direction).T
        mean = (along * self.probabilities).sum(dim=1, keepdim=True)
        return _array((self.probabilities * (along - mean) * self.narrow).T @ self.rows)

    def _there(self, weights: Rows) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(weights)).to(self.rows.device)


def _array(found: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = found.cpu().numpy()
    return array
