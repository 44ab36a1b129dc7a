"""An ensemble's folder on disk: it contains copies of its members, so it still predicts after it is moved."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import CropConfig
from tl_kit.errors import CheckpointError, ConfigError
from tl_kit.images.crops import check_crops
from tl_kit.storage.atomic import write_json
from tl_kit.storage.cards.readme import Network, checkpoint_readme, ensemble_readme, write_readme
from tl_kit.storage.cards.recorded_scores import Score
from tl_kit.storage.checkpoint import HELD_OUT_HEAD, META, WEIGHTS, read_meta
from tl_kit.storage.checkpoint_schema import check_classes, check_format, data_problems
from tl_kit.storage.seen_images import NO_USES, Uses, uses_in
from tl_kit.untrusted import check_inside, is_plain_relative, read_json
from tl_kit.zoo.model_card import CONFIG

__all__ = ["PICTURE", "EnsembleFolder", "describe_again", "is_ensemble", "read_ensemble", "write_ensemble"]

MANIFEST = "ensemble.json"
PICTURE = "receipt.png"
FORMAT = 2
_READABLE = (1, FORMAT)  # format 1: rules without parameters, no temperature


@dataclass(frozen=True)
class EnsembleFolder:
    """Content of ``ensemble.json``: members' folders, class order, rule, crops, passes; ``content`` has the receipt.

    ``fitted_on``: the images that chose the rule, its parameters or its temperature.
    """

    path: Path
    members: tuple[Path, ...]
    classes: tuple[str, ...]
    rule: FittedRule
    crops: CropConfig
    mc_dropout: int
    fitted_on: Uses
    content: Mapping[str, Any]


def is_ensemble(folder: Path) -> bool:
    """True if ``write_ensemble`` made the folder."""
    return (folder / MANIFEST).is_file()


def write_ensemble(
    folder: Path,
    members: Sequence[Path],
    *,
    classes: Sequence[str],
    rule: FittedRule,
    crops: CropConfig,
    mc_dropout: int = 0,
    fitted_on: Uses = NO_USES,
    **content: object,
) -> None:
    """Copy the members into ``folder``, and describe them; ``ensemble.json`` comes last and marks a complete folder."""
    names, networks = [], []
    for number, member in enumerate(members, 1):
        name = f"members/{number:02d}-{member.resolve().name}"
        (folder / name).mkdir(parents=True)
        for file in (WEIGHTS, CONFIG, META, HELD_OUT_HEAD):
            if file != HELD_OUT_HEAD or (member / file).is_file():
                shutil.copyfile(member / file, folder / name / file)
        names.append(name)
        networks.append(Network.read(folder / name, read_meta(folder / name), f"{number:02d}"))
        write_readme(folder / name, checkpoint_readme(networks[-1]))
    manifest = {
        "format": FORMAT,
        "classes": list(classes),
        **rule.to_dict(),
        **asdict(crops),
        "mc_dropout": mc_dropout,
        "members": names,
        "data": fitted_on.to_dict(),
        **content,
    }
    write_readme(folder, ensemble_readme(manifest, networks))
    write_json(folder / MANIFEST, manifest)


def describe_again(folder: Path, *, further: Sequence[Score], receipt: Mapping[str, Any] | None) -> None:
    """Write the model card of a checkpoint or an ensemble anew, with scores that came later.

    ``receipt``: an ensemble's, where its own record has none.
    """
    if not is_ensemble(folder):
        write_readme(folder, checkpoint_readme(Network.read(folder, read_meta(folder)), further=further))
        return
    found = read_ensemble(folder)
    content = {**found.content, **({} if receipt is None else {"receipt": receipt})}
    networks = [Network.read(path, read_meta(path), f"{number:02d}") for number, path in enumerate(found.members, 1)]
    write_readme(folder, ensemble_readme(content, networks, further=further))


def read_ensemble(folder: Path) -> EnsembleFolder:
    """Read ``ensemble.json``. Raises CheckpointError if it is broken, of another format, or leaves the folder."""
    path = folder / MANIFEST
    content = read_json(path, error=CheckpointError, folder=folder)
    check_format(content, path, readable=_READABLE)
    names, classes = _strings(content.get("members")), check_classes(content.get("classes"), path)
    if not names or len(set(names)) < len(names):
        raise CheckpointError(f"{path}: members are missing, or named twice")
    try:
        rule = FittedRule.from_dict(content, members=len(names), classes=len(classes))
    except ValueError as error:
        raise CheckpointError(f"{path}: the rule is broken: {error}") from error
    for name in names:
        if not is_plain_relative(name):
            raise CheckpointError(f"{path}: member {name!r} lies outside the ensemble's folder")
        check_inside(folder / name, folder, error=CheckpointError)
    crops, passes = _crops(content, path), content.get("mc_dropout", 0)
    if type(passes) is not int or passes < 0:
        raise CheckpointError(f"{path}: mc_dropout is broken: it must be a number of forward passes")
    members, fitted_on = tuple(folder / name for name in names), _fitted_on(content, rule, path)
    return EnsembleFolder(folder, members, classes, rule, crops, passes, fitted_on, content)


def _fitted_on(content: Mapping[str, Any], rule: FittedRule, path: Path) -> Uses:
    """Images that the rule was fitted on: unknown in older folders, unless the user named a rule that is not fitted."""
    data = content.get("data")
    if data is None:
        receipt = content.get("receipt")
        compared = isinstance(receipt, dict) and bool(receipt.get("comparison") or receipt.get("derived"))
        unfitted = not rule.parameters and rule.temperature == 1 and not compared
        return NO_USES if unfitted else Uses(unknown=(f"the rule of {path.parent}",))
    problem = "data is not a JSON object" if not isinstance(data, dict) else next(data_problems(data), None)
    if problem is not None:
        raise CheckpointError(f"{path}: {problem}; the file is damaged or was changed")
    return uses_in({**data, "teacher": None}, f"the rule of {path.parent}")


def _crops(content: Mapping[str, Any], path: Path) -> CropConfig:
    """The crops; folders from versions without crops get the default."""
    scales = content.get("scales", CropConfig.scales)
    config = CropConfig(
        crops=content.get("crops", CropConfig.crops), scales=tuple(scales) if isinstance(scales, (list, tuple)) else ()
    )
    try:
        check_crops(config)
    except ConfigError as error:
        raise CheckpointError(f"{path}: crops or scales are broken: {error}") from error
    return config


def _strings(value: object) -> list[str]:
    """The value if it is a list of strings, else an empty list."""
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else []
