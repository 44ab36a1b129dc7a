"""The audit: frozen means bit-identical, parameters and buffers, before and after training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from tl_kit.errors import AuditError

__all__ = ["Audit", "frozen_tensors", "run_audit", "tensor_digest"]


@dataclass(frozen=True)
class Audit:
    """Audit of frozen tensors: the number that the policy froze, and the number of these that changed all the same."""

    frozen_tensors: int
    changed_tensors: int
    ok: bool

    def to_dict(self) -> dict[str, int | bool]:
        return asdict(self)


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's type, shape and bytes."""
    plain = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{plain.dtype}{tuple(plain.shape)}".encode())
    digest.update(plain.view(-1).view(torch.uint8).numpy().data if plain.numel() else b"")
    return digest.hexdigest()


def frozen_tensors(model: nn.Module) -> dict[str, str]:
    """Digests, by name, of all parameters without gradient and of the buffers of modules in evaluation mode."""
    found = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    for prefix, module in model.named_modules():
        if module.training:
            continue
        for name, buffer in module.named_buffers(prefix=prefix, recurse=False):
            found[name] = buffer
    return {name: tensor_digest(tensor) for name, tensor in found.items()}


def run_audit(model: nn.Module, before: Mapping[str, str]) -> Audit:
    """Compare with the digests taken before training. Raises AuditError that names the tensors that changed."""
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    changed = [n for n, digest in before.items() if tensor_digest({**buffers, **parameters}[n]) != digest]
    if changed:
        shown = ", ".join(changed[:3]) + (" …" if len(changed) > 3 else "")
        raise AuditError(f"the policy freezes {len(before)} tensors, but {len(changed)} changed: {shown}")
    return Audit(frozen_tensors=len(before), changed_tensors=0, ok=True)
