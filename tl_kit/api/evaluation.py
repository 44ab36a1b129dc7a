"""``evaluate``: what a checkpoint or an ensemble scores on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tl_kit import metrics
from tl_kit.ambient import undisturbed
from tl_kit.api.labelled import predict_labelled
from tl_kit.api.left_out import left_out_dict, scan_images
from tl_kit.api.predictor import Predictor, load
from tl_kit.config import CropConfig, DataConfig, DecodeConfig, RuntimeConfig
from tl_kit.data.manifest import SPLITS, Manifest, Sample
from tl_kit.errors import ConfigError, DataError
from tl_kit.reporting import SILENT, Reporter
from tl_kit.training.checkpoint import Checkpoint, digest_prefix

__all__ = ["Evaluation", "evaluate", "seen", "split_config"]


@dataclass(frozen=True)
class Evaluation:
    """Scores on one split. ``confusion[i][j]``: images of class i predicted as j, in the order of ``per_class``.

    ``left_out``: path and reason of each file that could not be used, of whatever split.
    """

    split: str
    images: int
    crops: CropConfig
    mc_dropout: int
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    confusion: list[list[int]]
    left_out: list[dict[str, str]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        values = asdict(self)
        return {**values, **values["crops"]}


@undisturbed()
def evaluate(
    checkpoint: Path | str,
    data: Path | str,
    *,
    split: str | None = None,
    crops: CropConfig | None = None,
    mc_dropout: int | None = None,
    strict: bool = False,
    decode: DecodeConfig = DecodeConfig(),
    runtime: RuntimeConfig = RuntimeConfig(),
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Score ``split`` (train, val, test, all) of ``data``.

    By default ``test``, or ``val`` where there is no test split; and all images of a folder without splits of its own
    that the model has never seen. Splits that the run made are made again, equal. ``crops``, ``mc_dropout`` and
    ``decode`` as for ``load``. Raises DataError when the folder has classes that the model does not know or no image
    that can be decoded; with ``strict``, for any file that cannot be used.
    """
    if split is not None and split not in (*SPLITS, "all"):
        raise ConfigError(f"--split {split}: known are {', '.join(SPLITS)} and all")
    predictor = load(checkpoint, crops=crops, mc_dropout=mc_dropout, decode=decode, runtime=runtime)
    made = split_config(predictor)
    manifest = scan_images(data, made, decode=decode, strict=strict, reporter=reporter, trainable=False)
    chosen = split or _default_split(manifest, predictor)
    samples = manifest.samples if chosen == "all" else manifest.split(chosen)
    if not samples:
        raise DataError(f"{data}: has no {chosen} split; choose another --split")
    _warn_if_seen(samples, predictor, chosen, reporter)
    found = predict_labelled(predictor, manifest, samples, data=data, reporter=reporter)
    if found is None:
        raise DataError(f"{data}: none of the {len(samples)} images of {chosen} can be decoded")
    probabilities, truth = predictor.combine(found.predictions.members), found.predictions.labels
    return Evaluation(
        split=chosen,
        images=len(found.samples),
        crops=predictor.crops,
        mc_dropout=predictor.mc_dropout,
        metrics=metrics.summary(probabilities, truth),
        per_class=metrics.per_class(probabilities, truth, predictor.classes),
        confusion=metrics.confusion(probabilities, truth),
        left_out=left_out_dict([*manifest.exclusions, *found.left_out]),
    )


def split_config(predictor: Predictor) -> DataConfig:
    """How the first member's run made missing splits: the same data then falls into the same splits.

    Those of checkpoints that do not say so were made before near copies were kept on one side.
    """
    stored = predictor.members[0].meta.get("config", {}).get("split", {})
    if not stored:
        return DataConfig()
    names = DataConfig.__dataclass_fields__
    return DataConfig(**{"near_images": 0, **{name: value for name, value in stored.items() if name in names}})


def seen(samples: Sequence[Sample], members: Sequence[Checkpoint], *splits: str) -> list[Sample]:
    """Those of the samples that were in these splits of any member's run."""
    known = {digest for m in members for s in splits for digest in m.meta.get("data", {}).get(s, ())}
    return [sample for sample in samples if digest_prefix(sample) in known]


def _default_split(manifest: Manifest, predictor: Predictor) -> str:
    if manifest.made_splits and not seen(manifest.samples, predictor.members, "train", "val"):
        return "all"
    return "test" if manifest.split("test") else "val"


def _warn_if_seen(samples: Sequence[Sample], predictor: Predictor, split: str, reporter: Reporter) -> None:
    count = len(seen(samples, predictor.members, "train"))
    if count:
        reporter.message(f"warning: {count} of the {len(samples)} images of {split} were trained on; this is no test")
