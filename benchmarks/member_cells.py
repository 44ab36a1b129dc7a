"""What ``members.py`` trains: members of one kind on the images of one seed, and what they predict of val and test.

A cell holds, for each group of members, their probabilities ``"GROUP, val"`` and ``"GROUP, test"`` (m, n, k), the
labels, and ``notes``: what tl-kit said, in JSON. All figures follow from these.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ensembles import Cell, files_of
from policies import MODEL, SIDE

import tl_kit
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.data.exclusions import scan_images
from tl_kit.ensembling.averaged_models import Mixtures
from tl_kit.ensembling.derived_members import write_member
from tl_kit.ensembling.evidence import Evidence
from tl_kit.inference.labelled import labels_for
from tl_kit.inference.predictor import Predictor, load_members
from tl_kit.reporting import SILENT
from tl_kit.reports.sentences import verdict
from tl_kit.storage.checkpoint import load_checkpoint

__all__ = ["EPOCHS", "HEAD_EPOCHS", "MEMBERS", "heads", "snapshots", "soups"]

MEMBERS, INGREDIENTS = 5, 3
EPOCHS = 30
HEAD_EPOCHS = tl_kit.LoopConfig().head_epochs
APART = 100  # between the seeds of two cells' members

Groups = Mapping[str, Sequence[Path | str]]


def snapshots(table: Path, seed: int, cache: Path) -> Cell:
    """At equal total epochs: one run, the snapshots of another under a cyclic rate, and independent short runs."""
    with tempfile.TemporaryDirectory() as folder:
        config = replace(base(table, cache, folder), policy="last:2", epochs=EPOCHS, seed=APART * seed)
        one = tl_kit.finetune(replace(config, out=Path(folder) / "one"))
        cyclic = tl_kit.finetune(replace(config, schedule="cyclic", snapshots=MEMBERS, out=Path(folder) / "cyclic"))
        runs = tl_kit.finetune_members(replace(config, epochs=EPOCHS // MEMBERS), members=MEMBERS)
        groups: Groups = {
            "one run": [one.checkpoint],
            "snapshots": [snapshot.checkpoint for snapshot in cyclic.snapshots],
            "short runs": runs.checkpoints,
        }
        return predictions(groups, table, notes={})


def heads(table: Path, seed: int, cache: Path) -> Cell:
    """One head, heads on bootstrap samples, and heads trained by gradient from several seeds, on one frozen trunk."""
    with tempfile.TemporaryDirectory() as folder:
        config = replace(base(table, cache, folder), policy="head", seed=APART * seed)
        plain = tl_kit.finetune(replace(config, out=Path(folder) / "plain"))
        bagged = replace(config, out=Path(folder) / "bagged")
        reseeded = replace(config, out=Path(folder) / "reseeded", epochs=HEAD_EPOCHS)
        groups = {
            "one head": [plain.checkpoint],
            "bagged": tl_kit.finetune_members(bagged, members=MEMBERS, vary="bootstrap").checkpoints,
            "reseeded": tl_kit.finetune_members(reseeded, members=MEMBERS, vary="seed").checkpoints,
        }
        notes = {name: receipt(groups[name], Path(folder)) for name in ("bagged", "reseeded")}
        return predictions(groups, table, notes=notes)


def soups(table: Path, seed: int, cache: Path, *, options: Mapping[str, Any]) -> Cell:
    """Fine-tuned seeds, their uniform soup with either BatchNorm statistics, with either a new head, and what ships."""
    with tempfile.TemporaryDirectory() as folder:
        config: tl_kit.FinetuneConfig = replace(base(table, cache, folder), seed=APART * seed, **options)
        members = tl_kit.finetune_members(config, members=INGREDIENTS).checkpoints
        found: dict[str, Sequence[Path | str]] = {"members": members}
        for name, soup in write_soups(members, table, Path(folder)).items():
            head = replace(base(table, cache, folder), policy="head", weights=str(soup), out=soup.with_suffix(".head"))
            found |= {name: [soup], f"{name}, new head": [tl_kit.finetune(head).checkpoint]}
        kept = tl_kit.EnsembleConfig(checkpoints=members, rule="soup", out=Path(folder) / "shipped")
        shipped = tl_kit.ensemble(kept)
        found["shipped"] = [member.path for member in tl_kit.load(shipped.checkpoint).members]
        made = json.loads(json.dumps(shipped.receipt["derived"]).replace(f"{folder}/", ""))
        notes = {"tried on val": made["tried"], "fallback": made["fallback"], "batchnorm": made["batchnorm"]}
        return predictions(found, table, notes={**notes, "settings": settings_of(members[0])})


def base(table: Path, cache: Path, folder: str) -> tl_kit.FinetuneConfig:
    return tl_kit.FinetuneConfig(
        model=MODEL,
        data=table,
        img_size=SIDE,
        out=Path(folder) / "members",
        cache=tl_kit.CacheConfig(directory=cache),
    )


def opened(checkpoints: Sequence[Path | str], table: Path) -> Predictor:
    members = [load_checkpoint(Path(path), mapped=True) for path in checkpoints]
    classes = members[0].classes
    return load_members(table, members, classes=classes, rule=FittedRule(), runtime=tl_kit.RuntimeConfig())


def predictions(groups: Groups, table: Path, *, notes: Mapping[str, Any]) -> Cell:
    """All members in one pass over the images."""
    predictor = opened([path for paths in groups.values() for path in paths], table)
    ends = np.cumsum([len(paths) for paths in groups.values()])[:-1]
    cell: Cell = {"notes": np.array(json.dumps(notes))}
    for split in ("val", "test"):
        files, labels = files_of(table, predictor.classes, split)
        stack, _ = predictor.member_probabilities(files)
        parts = np.split(stack, ends)
        cell |= {f"{name}, {split}": part for name, part in zip(groups, parts, strict=True)}
        cell[f"{split} labels"] = np.array(labels)
    return cell


def receipt(checkpoints: Sequence[Path], folder: Path) -> dict[str, Any]:
    """The gain over the best and over the mean member, and the sentences that tell it."""
    config = tl_kit.EnsembleConfig(
        checkpoints=tuple(checkpoints), out=folder / f"{checkpoints[0].parent.name} together"
    )
    result = tl_kit.ensemble(config)
    sentences = [verdict(result.receipt), *(line for line in result.findings if line.startswith("Gain"))]
    return {
        "over the best member": result.receipt["gain"],
        "over the mean member": result.receipt["gain_over_mean_member"],
        "sentences": [line.replace(f"{folder}/", "") for line in sentences],
    }


def settings_of(checkpoint: Path) -> dict[str, Any]:
    """Those that the run resolved, of which the defaults are not in ``options``."""
    settings = load_checkpoint(checkpoint, mapped=True).meta["settings"]
    return {name: settings[name] for name in ("batchnorm", "epochs", "lr", "optimizer", "weight_decay", "augment")}


def write_soups(checkpoints: Sequence[Path], table: Path, folder: Path) -> dict[str, Path]:
    """The uniform soup as the ensembler makes it, with BatchNorm statistics as averaged and as re-estimated."""
    config = tl_kit.EnsembleConfig(checkpoints=tuple(checkpoints))
    predictor = opened(checkpoints, table)
    manifest = scan_images(table, tl_kit.DataConfig(), decode=config.decode, strict=False, reporter=SILENT)
    val = manifest.split("val")
    stack, _ = predictor.member_probabilities([sample.path for sample in val])
    evidence = Evidence(
        predictor=predictor,
        manifest=manifest,
        val=val,
        stack=stack,
        labels=labels_for(val, manifest, predictor, manifest.root),
        config=config,
        reporter=SILENT,
    )
    mixtures, written = Mixtures(evidence), {}
    for mix in mixtures.options([1.0] * len(checkpoints)):
        name = "re-estimated" if mix.reestimated else "as averaged"
        written[name] = write_member(
            folder / name.replace(" ", "-"),
            mixtures.load(mix),
            evidence=evidence,
            sources=range(len(checkpoints)),
            record={"rule": "soup"},
        )
    return written
