"""The flags, one alias each; their defaults stand in ``tl_kit.config``, and commands take them from there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from tl_kit.config import CropConfig, LoopConfig
from tl_kit.errors import ConfigError

__all__ = [
    "BatchSize",
    "CacheSize",
    "Checkpoint",
    "Checkpoints",
    "Compile",
    "Compiles",
    "Crops",
    "Data",
    "DataOfMembers",
    "Debug",
    "Epochs",
    "Format",
    "Formats",
    "Images",
    "ImgSize",
    "Json",
    "Lr",
    "Model",
    "Optimizer",
    "Out",
    "Pattern",
    "Policy",
    "Runtime",
    "Runtimes",
    "Scales",
    "Schedule",
    "Seed",
    "Split",
    "SplitSeed",
    "Top",
    "Views",
    "Weights",
    "crop_config",
]

Formats: TypeAlias = Literal["table", "csv", "jsonl"]
Runtimes: TypeAlias = Literal["auto", "plain"]
Compiles: TypeAlias = Literal["auto", "on", "off"]

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A timm name such as resnet18; `tlkit models PATTERN` finds others."),
]
Checkpoint = Annotated[
    Path, typer.Argument(metavar="CKPT", help="A folder that finetune or ensemble wrote.", show_default=False)
]
Checkpoints = Annotated[
    list[Path], typer.Argument(metavar="CKPT", help="Two or more checkpoint folders, for example ckpts/*.")
]
Images = Annotated[list[Path], typer.Argument(metavar="PATH", help="Image files, or folders of them.")]
Pattern = Annotated[
    str | None,
    typer.Argument(metavar="PATTERN", help="Part of a name, or a wildcard; without it, what is on this machine."),
]

Data = Annotated[
    Path,
    typer.Option(
        "--data", help="Class folders, train/val/test folders of them, or a CSV (path,label[,split][,group])."
    ),
]
DataOfMembers = Annotated[
    Path | None, typer.Option("--data", help="Images to score on (default: those that the members were trained on).")
]
Policy = Annotated[
    str, typer.Option("--policy", help="What trains: head, last:K (groups of layers, from the head), full, or auto.")
]
Epochs = Annotated[int | None, typer.Option("--epochs", help="At most so many (default: by policy).")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Images a training step (default: by data).")]
Lr = Annotated[float | None, typer.Option("--lr", help="Learning rate (default: by optimizer and policy).")]
Optimizer = Annotated[
    str | None,
    typer.Option("--optimizer", metavar="NAME", help="The lecture's, or any of timm's (default: by policy)."),
]
Schedule = Annotated[
    str | None,
    typer.Option("--schedule", metavar="NAME", help=f"Decay of the learning rate (default: {LoopConfig.schedule})."),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="auto|none|FILE|hf-hub:ID",
        help="Where from; auto: starter wheel, local cache, hub. none: random.",
    ),
]
ImgSize = Annotated[int | None, typer.Option("--img-size", help="Pixels a side (default: the model's own).")]
Seed = Annotated[int, typer.Option("--seed", help="For the new head, the order of images and augmentation.")]
SplitSeed = Annotated[
    int, typer.Option("--split-seed", help="For splits that the data lacks; the same for all members of an ensemble.")
]
CacheSize = Annotated[
    float,
    typer.Option("--cache-size", metavar="GB", help="Bound of the cache of frozen networks' outputs; 0: no cache."),
]
Views = Annotated[
    int | None,
    typer.Option("--views", metavar="V", help="Augmented views an image for last:K (default: by epochs and memory)."),
]
Runtime = Annotated[
    Runtimes, typer.Option("--runtime", help="plain: no cache, no bf16, no channels_last, memory as the system has it.")
]
Compile = Annotated[
    Compiles, typer.Option("--compile", help="torch.compile for training; auto: where it pays back within the run.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder to write (default: a new numbered one).")]
Split = Annotated[
    str | None,
    typer.Option("--split", metavar="train|val|test|all", help="Default: test, or what the model never saw."),
]
Crops = Annotated[
    int | None,
    typer.Option(
        "--crops",
        metavar="1|5|10",
        help=f"Centre, corners, mirror images, averaged (default: {CropConfig.crops}, or as the ensemble was made).",
    ),
]
Scales = Annotated[
    str | None,
    typer.Option(
        "--scales",
        metavar="S,...",
        help="Sizes of which to take the crops, such as 1,1.15; 1: the model's own (default as for --crops).",
    ),
]
Top = Annotated[int, typer.Option("--top", metavar="K", help="So many classes an image.")]
Format = Annotated[Formats, typer.Option("--format", help="For people, or for programs.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def crop_config(crops: int | None, scales: str | None) -> CropConfig | None:
    """What ``--crops`` and ``--scales`` say together: one given, the other takes its default. None without either.

    Raises ConfigError for scales that are no numbers.
    """
    if crops is None and scales is None:
        return None
    try:
        numbers = CropConfig.scales if scales is None else tuple(float(part) for part in scales.split(","))
    except ValueError:
        raise ConfigError(f"--scales {scales}: must be numbers with commas between, such as 1,1.15") from None
    return CropConfig(crops=CropConfig.crops if crops is None else crops, scales=numbers)
