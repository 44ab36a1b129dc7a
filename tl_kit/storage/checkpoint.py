"""A checkpoint is a folder that timm itself can open: ``timm.create_model("local-dir:FOLDER")``.

``config.json`` (architecture, classes, preprocessing, in timm's form), ``model.safetensors`` (weights), ``README.md``
(the model card) and ``tlkit.json`` (the run's configuration, class names, metrics, versions). No pickle. Where the
classifier was fitted to the validation images too, ``held-out-head.safetensors`` is the classifier that was fitted
without them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
from safetensors import SafetensorError, safe_open
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

from tl_kit.data.manifest import Sample
from tl_kit.errors import CheckpointError, first_line
from tl_kit.freezing.audit import tensor_digest
from tl_kit.images.transforms import Preprocessing
from tl_kit.machine.forks import unforked
from tl_kit.storage.atomic import write_atomically, write_json, write_tensors
from tl_kit.storage.cards.readme import Network, checkpoint_readme, write_readme
from tl_kit.storage.checkpoint_schema import check_classes, check_format, check_meta, ranges_of
from tl_kit.storage.fingerprint import digest_of
from tl_kit.untrusted import check_inside, read_json
from tl_kit.zoo.meta_model import folder_outline
from tl_kit.zoo.model_card import CONFIG, outputs, read_card
from tl_kit.zoo.safetensors_header import Entry, check_finite, read_header
from tl_kit.zoo.timm_factory import undrawn

__all__ = [
    "FOLDS",
    "HELD_OUT_HEAD",
    "MEMBERS",
    "Checkpoint",
    "digest_prefix",
    "is_checkpoint",
    "load_checkpoint",
    "map_weights",
    "read_meta",
    "refit_digests",
    "save_config",
    "save_held_out_head",
    "save_meta",
    "save_weights",
    "version_of",
]

META, WEIGHTS = "tlkit.json", "model.safetensors"
HELD_OUT_HEAD = "held-out-head.safetensors"
FOLDS = "folds.json"
MEMBERS = "members.json"
FORMAT = 1
_WRITTEN = "give a folder that tlkit finetune, ensemble or fit wrote"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: model in eval mode, class names in the order of its outputs, preprocessing and metadata.

    ``held_out``: True if it has the tensors of ``held-out-head.safetensors``.
    """

    path: Path
    model: nn.Module
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    meta: Mapping[str, Any]
    held_out: bool = False


def save_config(folder: Path, model: nn.Module, classes: Sequence[str], preprocessing: Preprocessing) -> None:
    """Write ``config.json``: everything timm needs to build the model, with its dropout rate, and the class names.

    transformers opens it too: it takes the number of classes from the top level alone, and fails on a second one.
    """
    recorded = getattr(model, "_model_args", {})  # timm writes all of these except drop rates
    config = {
        "label_names": list(classes),
        "model_args": {name: recorded[name] for name in ("drop_rate",) if recorded.get(name) is not None},
    }

    def write(path: Path) -> None:
        save_config_for_hf(model, str(path), config, data_config=preprocessing.card())
        content = json.loads(path.read_text(encoding="utf-8"))
        content["model_args"].pop("num_classes", None)
        path.write_text(json.dumps(content, indent=2), encoding="utf-8")

    write_atomically(folder / CONFIG, write)


def save_weights(folder: Path, model: nn.Module) -> None:
    """Write ``model.safetensors`` from a model on any device."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_tensors(folder / WEIGHTS, tensors, metadata={"format": "pt"})


def save_held_out_head(folder: Path, tensors: Mapping[str, Tensor] | None, *, model: nn.Module) -> None:
    """Write ``held-out-head.safetensors``: the tensors before the model was fitted to validation images too.

    They are those of the classifier, or all that a second training has changed, named as in ``model``. The metadata has
    the digest of the model's own ones, so that the file is used with no other. Without ``tensors`` an earlier file is
    removed.
    """
    if tensors is None:
        (folder / HELD_OUT_HEAD).unlink(missing_ok=True)
        return
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    final = _digest({name: tensor for name, tensor in model.state_dict().items() if name in plain})
    write_tensors(folder / HELD_OUT_HEAD, plain, metadata={"final": final})  # of two entries the order would be random


def _digest(tensors: Mapping[str, Tensor]) -> str:
    return digest_of({name: tensor_digest(tensor) for name, tensor in tensors.items()})


def save_meta(folder: Path, classes: Sequence[str], **content: object) -> None:
    """Write ``tlkit.json`` and, unless a run is under way, the model card before it."""
    versions = {"torch": version_of("torch"), "timm": timm.__version__, "tl_kit": version_of("tl-kit")}
    meta = {"format": FORMAT, "classes": list(classes), **content, "versions": versions}
    if content.get("status") != "running" and (folder / CONFIG).is_file():
        write_readme(folder, checkpoint_readme(Network.read(folder, meta)))
    write_json(folder / META, meta)


@cache
def version_of(package: str) -> str:
    """The version of an installed package; ``unknown`` where it is not installed. Reading it takes milliseconds."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def digest_prefix(sample: Sample) -> str:
    """The digest that names an image in ``tlkit.json``'s lists of seen images."""
    return sample.digest[:16]


def refit_digests(meta: Mapping[str, Any]) -> frozenset[str]:
    """The validation images, by digest, that the model was fitted to at the end; empty where it was not."""
    data = meta.get("data", {})
    return frozenset(data.get("val", ())) if data.get("refit", False) else frozenset()


def is_checkpoint(folder: Path) -> bool:
    """True if a folder contains a finished or interrupted run with weights."""
    return all((folder / name).is_file() for name in (META, CONFIG, WEIGHTS))


def read_meta(folder: Path) -> dict[str, Any]:
    """The content of ``tlkit.json``. Raises CheckpointError if it is missing, broken or of another format."""
    if folder.is_file():
        series = {MEMBERS: "member-*", FOLDS: "fold-*"}
        parts = [each for name, each in series.items() if (folder.parent / name).is_file()]
        hint = f"give {folder.parent}/{parts[0]}" if parts else "give the checkpoint's folder"
        if folder.suffix.lower() in (".pt2", ".xml", ".bin"):
            hint = "of exported files tl-kit runs those of --format onnx; here give the folder that it was made of"
        if folder.suffix.lower() == ".onnx":
            hint = "predict and evaluate take an exported file; here give the folder that it was made of"
        raise CheckpointError(f"{folder}: is a file, not a checkpoint; {hint}")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; {_WRITTEN}")
    if not is_checkpoint(folder):
        if (folder / FOLDS).is_file():
            raise CheckpointError(f"{folder}: holds the folds of a cross-validation; give one of them, such as fold-1")
        if (folder / MEMBERS).is_file():
            raise CheckpointError(f"{folder}: holds the members of an ensemble; give them as {folder}/member-*")
        missing = [name for name in (META, CONFIG, WEIGHTS) if not (folder / name).is_file()]
        if len(missing) == len((META, CONFIG, WEIGHTS)):
            raise CheckpointError(f"{folder}: is no checkpoint; {_advice(folder)}")
        raise CheckpointError(f"{folder}: not a finished checkpoint ({', '.join(missing)} missing)")
    meta = read_json(folder / META, error=CheckpointError, folder=folder)
    check_format(meta, folder / META, readable=(FORMAT,))
    check_meta(meta, folder / META)
    return meta


def _advice(folder: Path) -> str:
    """Advice for a folder that is no checkpoint: one of those inside it, if there are any."""
    inside = next((path.name for path in sorted(folder.iterdir()) if is_checkpoint(path)), None)
    return _WRITTEN if inside is None else f"give one of those inside it, such as {folder / inside}"


@unforked()
def load_checkpoint(folder: Path, *, mapped: bool = False, held_out: bool = False) -> Checkpoint:
    """Open a checkpoint folder. Raises CheckpointError, in one line, for every fault in it.

    ``mapped``: the weights are memory-mapped (:func:`map_weights`), so they take no memory until they are used.
    ``held_out``: with the tensors that were fitted without validation images, where the final ones were fitted to them.
    """
    meta = read_meta(folder)
    classes = check_classes(meta["classes"], folder / META)
    held_out = held_out and bool(refit_digests(meta))
    _check_parts(folder, classes, held_out=held_out)
    tensors = _read_weights(folder, held_out=held_out)
    try:
        model = undrawn(folder)
        if mapped:
            _assign(model, tensors)
        else:
            model.load_state_dict(tensors)
        preprocessing = replace(
            Preprocessing.from_model(model), ranges=ranges_of(meta), decoder=meta.get("decoder", "pillow")
        )
    except Exception as error:
        raise CheckpointError(f"{folder}: weights and {CONFIG} do not fit together ({first_line(error)})") from error
    return Checkpoint(folder, model.eval(), classes, preprocessing, meta, held_out)


def _check_parts(folder: Path, classes: tuple[str, ...], *, held_out: bool) -> None:
    """Check, before memory is allocated, that the files describe one network and its numbers are finite."""
    card = read_card(folder / CONFIG, error=CheckpointError, folder=folder)
    found = outputs(card)
    if found is not None and found != len(classes):
        raise CheckpointError(f"{folder}: {found} outputs but {len(classes)} class names in {META}")
    check_inside(folder / WEIGHTS, folder, error=CheckpointError)
    entries = read_header(folder / WEIGHTS, error=CheckpointError)
    try:
        shape = folder_outline(folder, error=CheckpointError)
    except Exception as error:
        raise CheckpointError(f"{folder / CONFIG}: timm cannot build a model from it ({first_line(error)})") from error
    difference = shape.mismatch(entries)
    if difference is not None:
        raise CheckpointError(f"{folder}: weights and {CONFIG} do not fit together: {difference}")
    if shape.outputs != len(classes):
        raise CheckpointError(f"{folder}: {shape.outputs} outputs but {len(classes)} class names in {META}")
    check_finite(folder / WEIGHTS, entries, error=CheckpointError)
    if held_out:
        _check_held_out_head(folder, entries)


def _check_held_out_head(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Check that the file has tensors of the network's, in their shapes."""
    path = folder / HELD_OUT_HEAD
    check_inside(path, folder, error=CheckpointError)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: is missing; without it the validation images of {folder} cannot be scored, since the model was "
            "fitted to them in the end: copy the whole folder"
        )
    found = read_header(path, error=CheckpointError)
    wrong = [name for name, entry in found.items() if name not in entries or entries[name].shape != entry.shape]
    if wrong or not found:
        raise CheckpointError(f"{path}: does not fit {WEIGHTS} ({wrong[0] if wrong else 'it is empty'})")
    check_finite(path, found, error=CheckpointError)


def map_weights(checkpoint: Checkpoint) -> None:
    """Replace the model's weights by those of its file, memory-mapped: unused weights take no memory.

    Raises CheckpointError if the file is missing, or no longer fits the model.
    """
    try:
        _assign(checkpoint.model, _read_weights(checkpoint.path, held_out=checkpoint.held_out))
    except RuntimeError as error:
        raise CheckpointError(
            f"{checkpoint.path / WEIGHTS}: was replaced while it was in use; load it again"
        ) from error


def _assign(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put the tensors themselves into the model; tensors of another dtype are converted to the model's."""
    types = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: t.to(types.get(name, t.dtype)) for name, t in tensors.items()}, assign=True)


def _read_weights(folder: Path, *, held_out: bool) -> dict[str, Tensor]:
    tensors = _read_tensors(folder / WEIGHTS)
    if not held_out:
        return tensors
    path = folder / HELD_OUT_HEAD
    head = _read_tensors(path)
    if _belongs_to(path) != _digest({name: tensors[name] for name in head}):
        raise CheckpointError(
            f"{path}: was written for other weights than those of {WEIGHTS}, which changed since, or were never saved: "
            "the validation images cannot be scored"
        )
    return {**tensors, **head}


def _belongs_to(path: Path) -> str | None:
    """The digest of the tensors that the held-out ones stand for."""
    with safe_open(str(path), framework="pt") as file:
        return (file.metadata() or {}).get("final")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); the file is damaged") from error
