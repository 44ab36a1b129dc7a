"""``export``: a checkpoint or an ensemble as one file, which is run on images before it is kept."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from tl_kit.config import ExportConfig, RuntimeConfig
from tl_kit.errors import CheckpointError, ConfigError
from tl_kit.exporting.check_images import find_images
from tl_kit.exporting.classifier import any_size
from tl_kit.exporting.eight_bits import EightBits, check_eight_bit_images, check_eight_bits, quantized
from tl_kit.exporting.graph_files import ENDINGS, check_format, make_file
from tl_kit.exporting.parity import Parity, check_parity, compare
from tl_kit.html_tables import html_block, html_table
from tl_kit.images.crops import decode_side
from tl_kit.inference.predictor import Predictor, load
from tl_kit.machine.ambient import undisturbed
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, Reporter
from tl_kit.storage.atomic import check_writable, safe_name, write_atomically, writing
from tl_kit.storage.checkpoint import version_of
from tl_kit.storage.exported_facts import ExportedFacts

__all__ = ["ExportResult", "export"]


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """The written file, its size in 10^6 bytes, its classes, and its comparison with ``predict``.

    ``size``: height and width of the images that it takes, in pixels; None: any. ``int8``: what quantisation changed.
    """

    file: str
    format: str
    classes: tuple[str, ...]
    size: tuple[int, int] | None
    megabytes: float
    parity: Parity
    int8: EightBits | None = None

    def _repr_html_(self) -> str:
        """The file and its comparison with ``predict``, for a notebook."""
        parity = {name.replace("_", " "): value for name, value in asdict(self.parity).items() if value is not None}
        rows = [[name, f"{value:.3g}" if isinstance(value, float) else str(value)] for name, value in parity.items()]
        title = f"{self.file} ({self.format}, {self.megabytes:.1f} MB)"
        return html_block(title, html_table(["", ""], rows, align="lr"))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@undisturbed()
@takes_plain_values
def export(config: ExportConfig, *, reporter: Reporter = SILENT) -> ExportResult:
    """Write a checkpoint or an ensemble as one file: resize, normalisation, members, rule and temperature inside.

    Before it is kept, the file predicts validation images, and its probabilities are compared with those of
    ``predict`` in fp32. Raises ExportError where they differ by more than ``config.tolerance``, or where int8 costs
    more than ``config.most_loss`` points of accuracy; ConfigError for what the format cannot express, and without the
    packages of the extra ``export``; CheckpointError if the checkpoint is broken, or the file is there already.
    """
    check_eight_bits(config)
    check_format(config.format)
    out = _out(config)
    exact, usual = _predictors(config)
    reason = any_size(exact, config.format) if config.input == "any" else None
    if reason is not None:
        reporter.message(f"the file takes images of the model's own size, cropped already: {reason}")
    facts = _facts(exact, cropped=config.input == "model" or reason is not None)
    images = find_images(config, exact, reporter)
    if config.int8:
        check_eight_bit_images(images)
    with TemporaryDirectory(prefix="tlkit-") as scratch:
        file = Path(scratch) / f"file{ENDINGS[config.format]}"
        reporter.start("export", 1)
        model = make_file(file, exact, facts, config)
        reporter.advance()
        parity = compare(model, exact, usual, images.sources, words=images.words, reporter=reporter)
        check_parity(parity, config.tolerance, name=str(out))
        eight = None
        if config.int8:
            file = file.with_stem("int8")
            eight = quantized(model, file, exact, images, config, reporter=reporter)
        return ExportResult(
            file=str(out),
            format=config.format,
            classes=facts.classes,
            size=facts.size,
            megabytes=_publish(file, out) / 1e6,
            parity=parity,
            int8=eight,
        )


def _out(config: ExportConfig) -> Path:
    """The file to write. Raises ConfigError for another format's ending, CheckpointError if it exists or cannot be."""
    ending = ENDINGS[config.format]
    name = safe_name(Path(config.checkpoint).resolve().name)
    out = Path(f"{name}{'-int8' if config.int8 else ''}{ending}") if config.out is None else Path(config.out)
    if out.suffix.lower() != ending:
        raise ConfigError(f"--out {out}: a file of --format {config.format} ends in {ending}")
    for path in (out, out.with_suffix(".bin")) if config.format == "openvino" else (out,):
        if path.exists():
            raise CheckpointError(f"--out {path}: is there already; choose another file or remove it")
    check_writable(out.parent)
    return out


def _predictors(config: ExportConfig) -> tuple[Predictor, Predictor]:
    """The predictor in fp32, and the one in the precisions of its runs; the same if they are fp32."""
    exact = load(config.checkpoint, decode=config.decode, runtime=RuntimeConfig(device="cpu", precision="fp32"))
    usual = load(config.checkpoint, decode=config.decode, runtime=RuntimeConfig(device="cpu"))
    same = all(scorer.runtime.precision == "fp32" for scorer in usual.scorers)
    return exact, exact if same else usual


def _facts(predictor: Predictor, *, cropped: bool) -> ExportedFacts:
    members = predictor.members
    ranges = {member.preprocessing.ranges for member in members}
    return ExportedFacts(
        classes=predictor.classes,
        decode_side=max(decode_side(member.preprocessing, predictor.crops) for member in members),
        preprocessings=tuple(member.preprocessing for member in members),
        cropped=cropped,
        ranges=ranges.pop() if len(ranges) == 1 else None,
        split=members[0].meta.get("config", {}).get("split", {}),
        about={
            "tl_kit": version_of("tl-kit"),
            "networks": [_network(member.model) for member in members],
            "rule": predictor.rule.rule,
            "temperature": predictor.rule.temperature,
        },
    )


def _network(model: nn.Module) -> str:
    """timm's name of the network."""
    return str(getattr(model, "pretrained_cfg", {}).get("architecture", ""))


def _publish(file: Path, out: Path) -> int:
    """Copy a file, and the weights beside it where its format has them, to ``out``; returns their bytes."""
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    total = 0
    for part in (file.with_suffix(".bin"), file):  # the weights first: the file that is opened completes them
        if part.is_file():
            write_atomically(out.with_suffix(part.suffix), partial(shutil.copyfile, part))
            total += part.stat().st_size
    return total
