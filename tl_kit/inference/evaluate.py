"""``evaluate``: scores of a checkpoint or an ensemble on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tl_kit import metrics
from tl_kit.config import CropConfig, DecodeConfig, RuntimeConfig
from tl_kit.data.exclusions import left_out_dict, scan_images
from tl_kit.data.manifest import SPLITS, Sample
from tl_kit.display import class_figures, figure, marked
from tl_kit.errors import ConfigError, DataError
from tl_kit.html_tables import html_block, html_table
from tl_kit.inference.exported import open_classifier
from tl_kit.inference.labelled import predict_labelled
from tl_kit.inference.made_splits import default_split, may_know, split_config
from tl_kit.machine.ambient import undisturbed
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, Reporter
from tl_kit.score_kinds import what_chose
from tl_kit.storage.seen_images import Uses, kind_of

__all__ = ["Evaluation", "evaluate"]

_CONFUSED = 3  # classes named for each one, in a notebook


@dataclass(frozen=True)
class Evaluation:
    """Scores on one split. ``confusion[i][j]``: images of class i predicted as j, in the order of ``per_class``.

    ``kind``: the kind of the scores (:func:`kind_of`): ``test``, ``selected on``, ``trained on``, ``mixed`` or
    ``unknown``. ``seen``: the number of images on which the model was trained (``train``), and the number that selected
    something for it (``selected_on``). ``left_out``: path and reason of each unusable file of any split.
    """

    split: str
    images: int
    kind: str
    seen: dict[str, int]
    crops: CropConfig
    mc_dropout: int
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    confusion: list[list[int]]
    left_out: list[dict[str, str]]

    def _repr_html_(self) -> str:
        """The scores, for a notebook: of the split, and of each class with what it is taken for."""
        split = marked(self.split, [{self.split: self.kind}])
        scores = [[name.replace("_", " "), figure(name, value)] for name, value in self.metrics.items()]
        names = list(self.per_class)
        rows = [
            [name, *class_figures(self.per_class[name]), _taken_for(names, row)]
            for name, row in zip(names, self.confusion, strict=True)
        ]
        columns = list(next(iter(self.per_class.values()), {}))
        return html_block(
            f"{self.images:,} images of {split} ({self.kind})",
            html_table(["", split], scores, align="lr"),
            html_table(["class", *columns, "taken for"], rows, align="l" + "r" * len(columns) + "l"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        values = asdict(self)
        return {**values, **values["crops"]}


def _taken_for(names: Sequence[str], row: Sequence[int]) -> str:
    """The classes that a class's images were predicted as, the most frequent first."""
    found = sorted(((count, name) for name, count in zip(names, row, strict=True) if count), key=lambda each: -each[0])
    return ", ".join(f"{name} {count}" for count, name in found[:_CONFUSED])


@undisturbed()
@takes_plain_values
def evaluate(
    checkpoint: Path | str,
    data: Path | str,
    *,
    split: str | None = None,
    crops: CropConfig | None = None,
    mc_dropout: int | None = None,
    strict: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
    decode: DecodeConfig = DecodeConfig(),
    runtime: RuntimeConfig = RuntimeConfig(),
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Score ``split`` (train, val, test, all) of ``data``. ``checkpoint`` as for ``predict``.

    The default is ``test``, or ``val`` if there is no test split. If the folder has no splits and the model, its
    teacher and its rule have seen none of its images, all images are scored. Images that trained the model, or selected
    something for it, are scored too; they are counted and a warning is reported. Splits that the run made are made
    again, equal. Columns of a table as for ``DataConfig``. ``crops``, ``mc_dropout`` and ``decode`` as for ``load``.
    Raises DataError if the folder has classes that the model does not know, or no image that can be decoded; with
    ``strict``, for any unusable file.
    """
    if split is not None and split not in (*SPLITS, "all"):
        raise ConfigError(f"--split {split}: known are {', '.join(SPLITS)} and all")
    predictor = open_classifier(checkpoint, crops=crops, mc_dropout=mc_dropout, decode=decode, runtime=runtime)

    def by_splits(samples: Sequence[Sample]) -> bool:
        """False where all images are scored, whatever split they would be in."""
        return split != "all" and (split is not None or may_know(predictor, samples))

    made = split_config(predictor, data, image_column=image_column, label_column=label_column)
    manifest = scan_images(data, made, decode=decode, strict=strict, reporter=reporter, trainable=False, link=by_splits)
    chosen = split or default_split(manifest, predictor)
    samples = manifest.samples if chosen == "all" else manifest.split(chosen)
    if not samples:
        lacks = (
            f"no {chosen} split; choose another --split" if split else "neither a test nor a val split; add --split all"
        )
        raise DataError(f"{data}: has {lacks}")
    found = predict_labelled(predictor, manifest, samples, data=data, reporter=reporter)
    if found is None:
        raise DataError(f"{data}: none of the {len(samples)} images of {chosen} can be decoded")
    seen = _tell_seen(found.samples, predictor.uses, chosen, reporter)
    probabilities, truth = predictor.combine(found.predictions.members), found.predictions.labels
    return Evaluation(
        split=chosen,
        images=len(found.samples),
        kind=kind_of(found.samples, predictor.uses),
        seen=seen,
        crops=predictor.crops,
        mc_dropout=predictor.mc_dropout,
        metrics=metrics.summary(probabilities, truth),
        per_class=metrics.per_class(probabilities, truth, predictor.classes),
        confusion=metrics.confusion(probabilities, truth),
        left_out=left_out_dict([*manifest.exclusions, *found.left_out]),
    )


def _tell_seen(samples: list[Sample], uses: Uses, split: str, reporter: Reporter) -> dict[str, int]:
    """Count the images that the model was trained on and those that selected something, and warn about both."""
    trained, selected = (len(uses.seen(samples, use)) for use in ("train", "selected on"))
    of = f"of the {len(samples)} images of {split}"
    if trained:
        reporter.message(f"warning: {trained} {of} were trained on; this is no test")
    if selected:
        chose = what_chose(uses.chose)
        reporter.message(f"warning: {selected} {of} chose {chose}; these scores are too good as an estimate")
    if uses.unknown:
        whose = ", ".join(uses.unknown)
        reporter.message(f"warning: there is no record of the images that {whose} has seen; these may be among them")
    return {"train": trained, "selected_on": selected}
