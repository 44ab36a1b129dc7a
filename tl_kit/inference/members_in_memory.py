"""Members of an ensemble in memory: equal layers are stored and run once; members that are too large take turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tl_kit.config import MembersConfig
from tl_kit.images.transforms import Preprocessing, normalize
from tl_kit.inference.run_models import Scorer, model_context
from tl_kit.inference.shared_trunks import Layers, SharedNetwork, entered, groups, layers, share, structure
from tl_kit.machine.forks import ForkLock
from tl_kit.machine.forward import forward_rows
from tl_kit.machine.runtime import Runtime
from tl_kit.storage.checkpoint import Checkpoint, map_weights

__all__ = ["MemberPass", "Members", "arrange", "weigh_too_much"]

_PROOF_IMAGES = 2
_PROOF_SEED = 0


class MemberPass:
    """A pass through one member, or several with equal first layers: uint8 (n, 3, h, w) -> (n, members, classes).

    The shared network is made and verified when the members are first prepared; without one, each member runs
    separately. If ``stays`` is false, ``release`` frees their memory, and ``prepare`` reads the weights again.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], scorers: Sequence[Scorer], owned: Sequence[Layers]) -> None:
        self.checkpoints = tuple(checkpoints)
        self.scorers = tuple(scorers)
        self.layers = tuple(owned)
        self.stays = True
        self.network: SharedNetwork | None = None
        self._proved = len(checkpoints) == 1
        self._ready = False

    @property
    def preprocessing(self) -> Preprocessing:
        return self.scorers[0].preprocessing

    @property
    def runtime(self) -> Runtime:
        return self.scorers[0].runtime

    @property
    def nbytes(self) -> int:
        """Bytes of the weights; weights that equal the first member's count once."""
        first, *others = self.layers
        return sum(first.sizes) + sum(other.beyond(first) for other in others)

    def prepare(self) -> None:
        """Load the weights into memory, equal ones once, and move them to the device. Raises CheckpointError."""
        if self._ready:
            return
        models = [scorer.model for scorer in self.scorers]
        for model, scorer in zip(models, self.scorers, strict=True):
            _place_own(scorer)
            if model is not models[0]:
                _adopt(model, models[0])
        if not self._proved:
            with model_context(models, self.runtime):
                self.network = share(models, self.layers, _proof_images(self.scorers[0]))
            self._proved = True
        self._ready = True

    def release(self) -> None:
        """Free the memory of the weights, unless they stay."""
        if not self.stays:
            for checkpoint in self.checkpoints:
                map_weights(checkpoint)
            self._ready = False

    def __call__(self, pixels: Tensor) -> Tensor:
        if self.network is None:
            return torch.stack([scorer(pixels) for scorer in self.scorers], dim=1)
        with model_context([scorer.model for scorer in self.scorers], self.runtime):
            images = normalize(self.runtime.batch(pixels), self.preprocessing)
            return forward_rows(self.network, images, rows=self.runtime.rows).float().cpu()


@dataclass(frozen=True)
class Members:
    """Passes, and the members that each pass computes.

    Only one prediction runs at a time (``lock``), because the passes leave and enter networks in the middle.
    """

    passes: tuple[MemberPass, ...]
    owners: tuple[tuple[int, ...], ...]
    lock: ForkLock = field(default_factory=ForkLock)


def weigh_too_much(sizes: Sequence[int], config: MembersConfig) -> bool:
    """True if members with these sizes of weights, in bytes, cannot stay in memory together."""
    return sum(sizes) - max(sizes) > config.keep_bytes


def arrange(
    checkpoints: Sequence[Checkpoint], scorers: Sequence[Scorer], *, sharing: bool, config: MembersConfig
) -> Members:
    """Group members with equal first layers; without ``sharing``, each member is a group."""
    heavy = weigh_too_much([_nbytes(checkpoint.model) for checkpoint in checkpoints], config)
    kinds: list[Hashable] = list(range(len(scorers)))
    if sharing and len(scorers) > 1:
        kinds = [(structure(scorer.model), scorer.preprocessing, scorer.runtime) for scorer in scorers]
    owned = _layers(kinds, checkpoints, scorers, heavy=heavy)
    owners = groups(kinds, owned)
    passes = [MemberPass([checkpoints[i] for i in g], [scorers[i] for i in g], [owned[i] for i in g]) for g in owners]
    leave = len(passes) > 1 and weigh_too_much([each.nbytes for each in passes], config)
    for each in passes:
        each.stays = not leave
    return Members(tuple(passes), tuple(map(tuple, owners)))


def _layers(
    kinds: Sequence[Hashable], checkpoints: Sequence[Checkpoint], scorers: Sequence[Scorer], *, heavy: bool
) -> list[Layers]:
    """Each member's layers; a member whose structure no other has counts as one layer."""
    counts = Counter(kinds)
    orders: dict[Hashable, tuple[str, ...]] = {}
    found = []
    for kind, checkpoint, scorer in zip(kinds, checkpoints, scorers, strict=True):
        if counts[kind] == 1:
            found.append(Layers(("",), ("",), (_nbytes(checkpoint.model),)))
            continue
        if kind not in orders:
            scorer.prepare()
            blank = torch.zeros(1, *scorer.preprocessing.input_size)
            orders[kind] = entered(scorer.model, scorer.runtime.batch(blank))
        found.append(layers(scorer.model, orders[kind]))
        if heavy:
            map_weights(checkpoint)
    return found


def _nbytes(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def _place_own(scorer: Scorer) -> None:
    """Place a model, and copy tensors still mapped from its file: kernels may round differently at other addresses."""
    tensors = [*scorer.model.parameters(), *scorer.model.buffers()]
    mapped = {tensor.data_ptr() for tensor in tensors}
    scorer.prepare()
    for tensor in (*scorer.model.parameters(), *scorer.model.buffers()):
        if tensor.data_ptr() in mapped:
            tensor.data = tensor.data.clone()


def _adopt(model: nn.Module, first: nn.Module) -> None:
    """Let tensors share memory with equal tensors of another model of this kind on the same device."""
    theirs = {**dict(first.named_parameters()), **dict(first.named_buffers())}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        other = theirs[name]
        if tensor.dtype == other.dtype and torch.equal(tensor, other):
            tensor.data = other.data


def _proof_images(scorer: Scorer) -> Tensor:
    """Normalised noise (n, 3, h, w), the same every time."""
    generator = torch.Generator().manual_seed(_PROOF_SEED)
    shape = (_PROOF_IMAGES, *scorer.preprocessing.input_size)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return normalize(scorer.runtime.batch(pixels), scorer.preprocessing)
