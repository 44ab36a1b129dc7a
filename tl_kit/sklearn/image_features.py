"""``ImageFeatures``: a frozen network's features as a transformer of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from tl_kit.config import CROP_MODES, DecodeConfig, EstimatorConfig, FinetuneConfig, RuntimeConfig
from tl_kit.data.ranges import measure_ranges
from tl_kit.data.scan import scan
from tl_kit.errors import ConfigError, DataError, SamplesError
from tl_kit.images.deep import SampleRanges
from tl_kit.images.transforms import Preprocessing
from tl_kit.inference.run_models import FileReader, Scorer, Source, run_models
from tl_kit.machine.ambient import undisturbed
from tl_kit.machine.precision import choose_precision
from tl_kit.machine.runtime import detect
from tl_kit.number_ranges import check_numbers
from tl_kit.plain_values import plain
from tl_kit.sklearn.given_images import images_of, may_be_deep, source_name
from tl_kit.sklearn.kept_checkpoint import KeptCheckpoint
from tl_kit.sklearn.training_table import TrainingTable
from tl_kit.storage.checkpoint import save_config, save_meta, save_weights
from tl_kit.zoo.build_model import build_model, set_crop_mode

__all__ = ["ImageFeatures"]

_CLASS = "image"


class ImageFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Features of a frozen timm network: what its classifier is given, for each image.

    ``X`` as for :class:`ImageClassifier`. ``model``, ``weights``, ``img_size`` and ``crop_mode`` as for
    ``tlkit finetune``; crop mode None is the model's own. The network never changes, so features of one image are equal
    whatever ``fit`` was given; only of images of more than 8 bits a sample, ``fit`` measures the range in use.

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from tl_kit.sklearn import ImageFeatures
    >>> make_pipeline(ImageFeatures(), LogisticRegression()).fit(paths, labels)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str = EstimatorConfig.model,
        *,
        weights: str = FinetuneConfig.weights,
        img_size: int | None = FinetuneConfig.img_size,
        crop_mode: str | None = None,
        device: str = RuntimeConfig.device,
        seed: int = FinetuneConfig.seed,
    ) -> None:
        self.model = model
        self.weights = weights
        self.img_size = img_size
        self.crop_mode = crop_mode
        self.device = device
        self.seed = seed

    @undisturbed()
    def fit(self, X: Any, y: Any = None) -> ImageFeatures:
        """Load the network, from whose classifier nothing is used. ``y`` is ignored.

        Raises ConfigError and WeightsError as ``tl_kit.finetune`` does, and InputError for values that are no images.
        """
        images = images_of(X)
        if self.crop_mode not in (None, *CROP_MODES):
            raise ConfigError(f"crop_mode {self.crop_mode}: known are None, {', '.join(CROP_MODES)}")
        given = self._config()
        model, _ = build_model(given.model, 1, weights=given.weights, img_size=given.img_size, seed=given.seed)
        if self.crop_mode is not None:
            set_crop_mode(model, self.crop_mode)
        runtime, _ = choose_precision(model, detect(given.runtime), given.runtime)
        with TemporaryDirectory(prefix="tlkit-") as scratch:
            folder = Path(scratch).resolve()
            ranges = _ranges(images, folder)
            run = folder / "run"
            run.mkdir()
            preprocessing = replace(Preprocessing.from_model(model), ranges=ranges)
            save_config(run, model, (_CLASS,), preprocessing)
            save_weights(run, model)
            known = {} if ranges is None else ranges.to_dict()
            save_meta(run, (_CLASS,), precision=runtime.precision, ranges=known, config={"model": self.model})
            self._kept = KeptCheckpoint.read(run)
        with torch.inference_mode():
            blank = torch.zeros(1, *preprocessing.input_size)
            self._n_features_out = int(_Features(model).eval()(blank).shape[1])
        return self

    @undisturbed()
    def transform(self, X: Any) -> NDArray[np.float32]:
        """Features (n, d) of the images, in the order of ``X``, computed in batches.

        Raises SamplesError, naming the image, where one cannot be decoded.
        """
        check_is_fitted(self)
        images = images_of(X)
        predictor = self._kept.predictor(DecodeConfig(), RuntimeConfig(device=self.device))
        (checkpoint,), (scorer,) = predictor.members, predictor.scorers
        reader = FileReader(images, [checkpoint.preprocessing])
        network = Scorer(_Features(checkpoint.model), checkpoint.preprocessing, scorer.runtime)
        (found,) = run_models([network], reader)
        if reader.failures:
            index, reason = next(iter(reader.failures.items()))
            raise SamplesError(f"{source_name(images[index], index)}: {reason}")
        return np.asarray(found.numpy(), dtype=np.float32)

    def _config(self) -> FinetuneConfig:
        """The parameters as those of a run on no images. Raises ConfigError, naming one of another type or range."""
        config = plain(
            FinetuneConfig(
                model=self.model,
                data=Path("X"),
                weights=self.weights,
                img_size=self.img_size,
                runtime=RuntimeConfig(device=self.device),
                seed=self.seed,
            )
        )
        check_numbers(config)
        return config

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_kept")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = True
        return tags


class _Features(nn.Module):
    """A timm network without its classifier: images (n, 3, h, w) -> features (n, d)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        network: Any = self.model  # the two methods are timm's
        features: Tensor = network.forward_head(network.forward_features(images), pre_logits=True)
        return features.flatten(1)


def _ranges(images: Sequence[Source], folder: Path) -> SampleRanges | None:
    """The range in use of images of more than 8 bits a sample; None without such images."""
    files = [image for image in images if may_be_deep(image)]
    if not files:
        return None
    table = TrainingTable(folder)
    table.add(files, [_CLASS] * len(files))
    try:
        found = scan(table.write(), trainable=False, link=lambda samples: False)
    except DataError:  # none can be read, which transform says in a better way
        return None
    return measure_ranges(found.samples)
