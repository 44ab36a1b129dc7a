"""Decoded images in a GPU's memory: put there once, so that a batch of them costs no transfer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tl_kit.data.manifest import Sample
from tl_kit.data.pixel_store import PixelStore
from tl_kit.machine.memory import in_portions

__all__ = ["DevicePixels"]

_CHUNK = 2**26  # bytes that go to the device at a time


class DevicePixels:
    """Pixels of some samples: from the device if they fit there, else from the store.

    They are put there if the store has all of them and they take at most ``budget`` bytes; by default
    ``StoreConfig.device_share`` of the free memory of a GPU, and nothing of other devices.
    """

    def __init__(
        self,
        store: PixelStore,
        samples: Sequence[Sample],
        *,
        crop: bool,
        device: torch.device,
        budget: int | None = None,
    ) -> None:
        self.store, self.crop = store, crop
        self._pixels: dict[str, Tensor] = {}
        if budget is None:
            free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
            budget = int(store.device_share * free)
        kept = store.kept({sample.digest for sample in samples}, crop=crop) if budget else None
        if kept is not None and 0 < sum(pixels.nbytes for pixels in kept.values()) <= budget:
            self._pixels = dict(_moved(kept, device))

    @property
    def on_device(self) -> bool:
        """True where the images are in the device's memory."""
        return bool(self._pixels)

    def give_up(self) -> bool:
        """Leave the device's memory to others; False if nothing was there. The store has the images from now on."""
        there, self._pixels = self.on_device, {}
        return there

    def get(self, samples: Sequence[Sample]) -> list[Tensor]:
        """uint8 (3, h', w') of each sample. Raises ImageError as :meth:`PixelStore.get` does."""
        held = self._pixels  # another thread may give them up
        if held:
            return [held[sample.digest] for sample in samples]
        return self.store.get(samples, crop=self.crop)


def _moved(kept: dict[str, Tensor], device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """The same images on the device, as views of one buffer, from which a batch is taken by one look-up."""
    buffer = torch.empty(sum(pixels.numel() for pixels in kept.values()), dtype=torch.uint8, device=device)
    start = 0
    for some in in_portions({name: pixels.nbytes for name, pixels in kept.items()}, _CHUNK):
        together = torch.cat([kept[name].flatten() for name in some])
        together = together.pin_memory() if device.type == "cuda" else together
        buffer[start : start + len(together)].copy_(together, non_blocking=True)
        for name in some:
            end = start + kept[name].numel()
            yield name, buffer[start:end].view(kept[name].shape)
            start = end
