"""The files of a checkpoint or an ensemble as they are published: weights whole, records without what is the user's.

Records keep only what is listed here. Paths, options, digests of images and names of folders stay on the machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from tl_kit.errors import PublishError
from tl_kit.storage.cards.readme import README, Network, checkpoint_readme, ensemble_readme
from tl_kit.storage.cards.recorded_scores import Score, mapping
from tl_kit.storage.checkpoint import FORMAT, HELD_OUT_HEAD, META, WEIGHTS, read_meta
from tl_kit.storage.ensemble_folder import FORMAT as ENSEMBLE_FORMAT
from tl_kit.storage.ensemble_folder import MANIFEST, is_ensemble, read_ensemble
from tl_kit.storage.fit_folder import fit_scores, is_fit, read_fit
from tl_kit.zoo.model_card import CONFIG

__all__ = ["PublishedFile", "is_ours", "published_files"]

_META = (
    *("policy", "status", "epochs", "best_epoch", "trainable_parameters", "val", "test", "kinds", "chosen_by_val"),
    *("cross_validated", "refit", "precision", "decoder", "ranges", "settings", "versions"),
)
_CONFIG = ("architecture", "num_classes", "num_features", "global_pool", "model_args", "pretrained_cfg")
_RECEIPT = (
    *("images", "kinds", "chosen_by_val", "ensemble", "gain", "gain_over_mean_member", "calibration", "out_of_fold"),
)
_KNOWN_SOURCES = ("random", "starter wheel ", "Hugging Face hub ", "Hugging Face cache ")
_PLAIN: tuple[dict[str, str], ...] = ({}, {"format": "pt"})


@dataclass(frozen=True)
class PublishedFile:
    """A file of the repository: its path there, and its content or the file on this machine that holds it."""

    path: str
    content: bytes | Path

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def is_ours(path: str) -> bool:
    """True for a path in a repository that a push may have written."""
    return path in (README, CONFIG, META, WEIGHTS, MANIFEST) or path.startswith("members/")


def published_files(given: Path, folder: Path, repository: str) -> tuple[list[PublishedFile], list[str]]:
    """The files to publish, and a line for each thing that is left out.

    ``folder``: the checkpoint or ensemble itself; ``given``: what the user named, which may be the folder of a fit.
    Raises PublishError for a run that has not ended, and CheckpointError for a broken record.
    """
    further: list[Score] = []
    receipt = None
    if is_fit(given):
        content = read_fit(given)
        further, receipt = fit_scores(content), content.get("receipt")
    if is_ensemble(folder):
        files, sources = _ensemble(folder, further, mapping(receipt), repository)
    else:
        network = _network(folder)
        card = checkpoint_readme(network, further=further, repository=repository)
        files, sources = [_text(README, card), *_checkpoint(folder, network, "")], [folder]
    return files, list(_left_out(given, folder, sources))


def _ensemble(
    folder: Path, further: Sequence[Score], receipt: Mapping[str, Any], repository: str
) -> tuple[list[PublishedFile], list[Path]]:
    found = read_ensemble(folder)
    content = {**found.content, **({"receipt": receipt} if receipt else {})}
    networks = []
    for number, member in enumerate(found.members, 1):
        alone = _network(member)
        name = f"members/{number:02d}-{alone.architecture}"
        networks.append(Network(config=alone.config, meta=alone.meta, name=name))
    card = ensemble_readme(content, networks, further=further, repository=repository)
    uses = found.fitted_on
    kept = {key: value for key, value in mapping(content.get("receipt")).items() if key in _RECEIPT}
    unseen: dict[str, Any] = {"unknown": True} if uses.known or uses.unknown else {"train": [], "val": []}
    manifest = {
        "format": ENSEMBLE_FORMAT,
        "classes": list(found.classes),
        **found.rule.to_dict(),
        **asdict(found.crops),
        "mc_dropout": found.mc_dropout,
        "members": [network.name for network in networks],
        "data": unseen,
        "receipt": _without_paths(kept) or None,
    }
    files = [_text(README, card), _json(MANIFEST, manifest)]
    for network, member in zip(networks, found.members, strict=True):
        files += _checkpoint(member, network, f"{network.name}/")
    return files, list(found.members)


def _network(folder: Path) -> Network:
    meta = read_meta(folder)
    if meta.get("status") == "running":
        raise PublishError(f"{folder}: its run has not ended; tlkit finetune --resume {folder} goes on")
    return Network.read(folder, meta)


def _checkpoint(folder: Path, network: Network, below: str) -> Iterator[PublishedFile]:
    weights = folder / WEIGHTS
    with safe_open(str(weights), framework="pt") as file:
        if (file.metadata() or {}) not in _PLAIN:
            raise PublishError(f"{weights}: has notes of another program in its header; save it anew with tl-kit")
    yield _json(f"{below}{CONFIG}", _config(network))
    yield _json(f"{below}{META}", _meta(network))
    yield PublishedFile(f"{below}{WEIGHTS}", weights)


def _config(network: Network) -> dict[str, Any]:
    """With the number of classes once: folders of earlier versions have it twice, which transformers refuses."""
    kept = {key: value for key, value in network.config.items() if key in _CONFIG}
    kept["model_args"] = {k: v for k, v in mapping(kept.get("model_args")).items() if k != "num_classes"}
    plain: dict[str, Any] = _without_paths(kept)
    return {**plain, "label_names": list(network.meta["classes"])}


def _meta(network: Network) -> dict[str, Any]:
    meta = network.meta
    weights, options = mapping(meta.get("weights")), mapping(meta.get("config"))
    source, asked = str(weights.get("source", "unknown")), str(options.get("weights", "auto"))
    known = source.startswith(_KNOWN_SOURCES)
    return {
        "format": FORMAT,
        "classes": list(meta["classes"]),
        "model": network.architecture,
        **_without_paths({key: meta[key] for key in _META if key in meta}),
        "weights": {
            "source": source if known else "local file",
            **{key: weights[key] for key in ("sha256", "loaded") if key in weights},
        },
        "config": {"model": network.architecture, "weights": asked if asked in ("auto", "none") else "given"},
        "data": {"images": network.images},
    }


def _without_paths(value: Any) -> Any:
    """Plain JSON without the texts in it that could be a path or an address."""
    if isinstance(value, Mapping):
        return {key: _without_paths(inner) for key, inner in value.items() if not _is_path(inner)}
    if isinstance(value, (list, tuple)):
        return [_without_paths(inner) for inner in value if not _is_path(inner)]
    return value


def _is_path(value: object) -> bool:
    return isinstance(value, str) and any(mark in value for mark in "/\\")


def _left_out(given: Path, folder: Path, sources: Sequence[Path]) -> Iterator[str]:
    yield "paths and options of the run, and digests of its images: evaluate cannot say then which it has seen"
    if any((source / HELD_OUT_HEAD).is_file() for source in sources):
        yield f"{HELD_OUT_HEAD}, which only scores the validation images"
    if is_ensemble(folder):
        yield "the names of the members' folders"
    kept = {README, CONFIG, META, WEIGHTS, MANIFEST, HELD_OUT_HEAD, "members"}
    if others := _names_in(folder, kept):
        yield f"what else is in the folder: {', '.join(others)}"
    if is_fit(given) and (rest := _names_in(given, {folder.relative_to(given).parts[0]})):
        yield f"what else the fit wrote: {', '.join(rest)}; its best result alone goes up"


def _names_in(folder: Path, kept: Set[str]) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in kept and not path.name.startswith("."))


def _text(path: str, text: str) -> PublishedFile:
    return PublishedFile(path, text.encode("utf-8"))


def _json(path: str, content: Mapping[str, Any]) -> PublishedFile:
    text = json.dumps(content, indent=2, ensure_ascii=True, allow_nan=False)
    return PublishedFile(path, f"{text}\n".encode())
