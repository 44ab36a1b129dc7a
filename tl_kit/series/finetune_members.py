"""``finetune_members``: trains the members of an ensemble with one command, on one scan and one split."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from tl_kit.config import FinetuneConfig, RunsConfig, Vary, VaryConfig
from tl_kit.data.manifest import Manifest
from tl_kit.data.resampling import member_images
from tl_kit.errors import CheckpointError, ConfigError
from tl_kit.finetuning.checks import check, count_of_members
from tl_kit.finetuning.result import Trained
from tl_kit.machine.ambient import undisturbed
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, Reporter
from tl_kit.score_kinds import notes_on
from tl_kit.series.records import SeriesRecords
from tl_kit.series.rehearsal import rehearse
from tl_kit.series.series import Part, PartRun, Series, parts_html, run_fields
from tl_kit.storage.atomic import write_json
from tl_kit.storage.checkpoint import MEMBERS, WEIGHTS
from tl_kit.storage.config_json import to_json
from tl_kit.untrusted import sha256

__all__ = ["MemberRun", "MemberRuns", "finetune_members", "member_configs"]

_LISTS = {"model": "model", "policy": "policy", "crop-mode": "crop_mode"}
"""The ways to vary by names that the user lists, and the field of the configuration that lists them."""
_SAME_HEAD = ("seed", "policy")


@dataclass(frozen=True, kw_only=True)
class MemberRun(PartRun):
    """One member; ``varied`` says how it differs."""

    member: int
    varied: str
    model: str


@dataclass(frozen=True, kw_only=True)
class MemberRuns:
    """All members, in ``folder``; validation and test images are the same for all.

    ``copies``: numbers of members whose weights are the same to the last bit, each group of them.
    """

    folder: str
    vary: str
    classes: tuple[str, ...]
    members: tuple[MemberRun, ...]
    seconds: dict[str, float]
    copies: tuple[tuple[int, ...], ...] = ()

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        """The members' folders, as ``EnsembleConfig`` takes them."""
        return tuple(Path(member.checkpoint) for member in self.members)

    @property
    def notes(self) -> list[str]:
        """Notes, one line each: scores too good as estimates, how to get an honest one, and members that are copies."""
        chose = dict.fromkeys(what for member in self.members for what in member.chosen_by_val)
        return [*notes_on([member.kinds for member in self.members], tuple(chose)), *self._copies()]

    def _copies(self) -> Iterator[str]:
        """A line on each group of copies, with the reason where it is known."""
        kept = {member.member for member in self.members if member.kept == "head"}
        heads = kept | {member.member for member in self.members if member.policy == "head"}
        for group in self.copies:
            names = ", ".join(f"member-{number}" for number in group)
            if heads.issuperset(group) and not kept.isdisjoint(group) and self.vary in _SAME_HEAD:
                yield (
                    f"{names}: are one network, the fitted head, which validation found better than what trained; "
                    "--no-head-guard keeps what each was trained to, --vary bootstrap makes heads that differ"
                )
            else:
                yield (
                    f"{names}: have the same weights, since --vary {self.vary} changes nothing on these training "
                    "images; keep one of them"
                )

    @property
    def command(self) -> str:
        """The command that combines them."""
        return f"tlkit ensemble {shlex.quote(self.folder)}/member-*"

    def _repr_html_(self) -> str:
        """Each member's scores, for a notebook."""
        parts = [(f"{member.member}, {member.varied}", member) for member in self.members]
        return parts_html(f"{len(parts)} members", parts, [*self.notes, f"folder: {self.folder}"])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            **to_json(self),
            "command": self.command,
        }


@undisturbed()
@takes_plain_values
def finetune_members(
    config: FinetuneConfig,
    *,
    members: int | None = None,
    vary: Vary = VaryConfig.vary,
    reporter: Reporter = SILENT,
    unfinished: SeriesRecords | None = None,
) -> MemberRuns:
    """Fine-tune several members of an ensemble as ordinary checkpoints ``out/member-1`` ...

    ``vary``: the property in which they differ; everything else is equal.

    - ``seed``: member i has the seed ``config.seed + i - 1``; the split has a seed of its own.
    - ``folds``: member i trains without the i-th stratified fold of the training images (Krogh & Vedelsby 1995).
    - ``bootstrap``: member i trains on the i-th bootstrap sample of the training images, within classes (Breiman 1996).
    - ``model``, ``policy``: ``config.model`` or ``config.policy`` names several, with commas between; one member each.
    - ``crop-mode``: so does ``config.crop_mode``; "auto" stands for those that a run compares (``config.crop_choice``).

    Images are scanned and split once. Names and options of all members are checked before the first run starts. Raises
    the errors of :func:`finetune`, and ConfigError for members that would be copies. Ctrl-C and errors leave the
    finished members; without any, no folder is left. ``unfinished``: the records of these members if they ended early
    and are resumed.
    """
    variants = member_configs(config, members, vary)
    for _, variant in variants:
        check(variant)
    series = Series(config, "members", reporter=reporter)
    parts = _parts(variants, series.manifest, vary)
    rehearse([part.config for part in parts], series.manifest, vary)
    whole = series.manifest.content_hash()
    runs = RunsConfig(members=members, vary=vary)
    with series.trained(parts, runs, unfinished=unfinished, content=whole, vary=vary) as (folder, done):
        result = MemberRuns(
            folder=str(folder),
            vary=vary,
            classes=series.manifest.classes,
            members=tuple(_member(*each) for each in zip(range(1, len(parts) + 1), variants, done, strict=True)),
            seconds=series.seconds(),
            copies=_copies_in([folder / part.folder for part in parts]) if series.main else (),
        )
        if series.main:
            write_json(folder / MEMBERS, {**result.to_dict(), "config": to_json(config)})
    return result


@takes_plain_values
def member_configs(config: FinetuneConfig, members: int | None, vary: Vary) -> list[tuple[str, FinetuneConfig]]:
    """Each member's difference in words, and its configuration. Raises ConfigError for members that are copies."""
    if vary not in get_args(Vary):
        raise ConfigError(f"--vary {vary}: known are {', '.join(get_args(Vary))}")
    several = next((name for name, entry in _LISTS.items() if name != vary and "," in getattr(config, entry)), None)
    if several is not None:
        listed = getattr(config, _LISTS[several])
        raise ConfigError(f"{listed}: names more than one {several}, which takes --vary {several}")
    if vary in _LISTS:
        return _named(config, members, vary)
    count = count_of_members(members)
    if vary == "seed":
        return [(f"seed {config.seed + i}", replace(config, seed=config.seed + i)) for i in range(count)]
    what = "without fold" if vary == "folds" else "bootstrap sample"
    return [(f"{what} {number}", config) for number in range(1, count + 1)]


def _named(config: FinetuneConfig, members: int | None, vary: str) -> list[tuple[str, FinetuneConfig]]:
    entry = _LISTS[vary]
    text = getattr(config, entry)
    if vary == "crop-mode" and text == "auto":
        text = ",".join(config.crop_choice.modes)
    names = [name.strip() for name in text.split(",")]
    if len(names) < 2 or not all(names):
        raise ConfigError(f"--vary {vary}: give two names or more with commas between, not '{text}'")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"--vary {vary}: '{twice}' is named twice, and the two members would be copies")
    if members not in (None, len(names)):
        raise ConfigError(f"--members {members}: --vary {vary} has {len(names)} names; leave --members out")
    return [(name, replace(config, **{entry: name})) for name in names]


def _parts(variants: Sequence[tuple[str, FinetuneConfig]], manifest: Manifest, vary: Vary) -> list[Part]:
    count = len(variants)
    manifests = member_images(manifest, variants[0][1], count, vary)
    parts = []
    for number, ((varied, config), images) in enumerate(zip(variants, manifests, strict=True), start=1):
        name = f"-{re.sub(r'[^A-Za-z0-9._-]', '-', varied)}" if vary in _LISTS else ""
        title = f"member {number} of {count}, {varied}"
        parts.append(Part(folder=f"member-{number}{name}", title=title, config=config, manifest=images))
    return parts


def _member(number: int, variant: tuple[str, FinetuneConfig], trained: Trained) -> MemberRun:
    return MemberRun(member=number, varied=variant[0], model=trained.result.model, **run_fields(trained))


def _copies_in(folders: Sequence[Path]) -> tuple[tuple[int, ...], ...]:
    """Find members with equal weights files; returns groups of their numbers, from 1. Unreadable files are left out."""
    groups: dict[str, list[int]] = {}
    for number, folder in enumerate(folders, start=1):
        with suppress(CheckpointError):
            groups.setdefault(sha256(folder / WEIGHTS, error=CheckpointError), []).append(number)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)
