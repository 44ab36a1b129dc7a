"""``ImageClassifier``: fine-tuning as a classifier of scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import Tags, assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from tl_kit.config import DataConfig, EstimatorConfig, FinetuneConfig, HeadConfig, RuntimeConfig
from tl_kit.errors import ConfigError, SamplesError
from tl_kit.finetuning.result import FinetuneResult
from tl_kit.fitting.network_choice import finetune
from tl_kit.inference.run_models import Source
from tl_kit.named_options import with_options
from tl_kit.number_ranges import check_numbers
from tl_kit.plain_values import plain
from tl_kit.sklearn.given_images import images_of, source_name
from tl_kit.sklearn.kept_checkpoint import KeptCheckpoint
from tl_kit.sklearn.training_table import TrainingTable, class_names

__all__ = ["ImageClassifier"]

_OWN = "options__"
_OF_FOLDERS = ("data", "out", "default_out", "plot", "snapshots", "late", "save_every")


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A timm network, fine-tuned on images as ``tlkit finetune`` does it, with the same weights, bit for bit.

    ``X`` is a list of image files (texts or paths), of Pillow images, or an array (n, h, w), (n, h, w, 3) or
    (n, h, w, 4) of uint8, or (n, h, w), (n, h, w, 3) of uint16. ``y`` (n,) are labels of any type that scikit-learn
    takes. Of each class, a share ``val_fraction`` is set aside for validation, unless ``fit`` is given validation
    images; in the end the head is fitted to them too. ``result_.val`` has their scores from before, ``score`` those
    after it. Parameters are the options of :class:`tl_kit.FinetuneConfig` of the same names. ``options``: any other of
    them, by the name of its flag or its field (``{"l2": 0.1, "balance": "loss"}``); each is a parameter of its own for
    ``set_params`` and a grid search, as ``options__l2``.

    After ``fit``: ``classes_`` (classes,), sorted, in the type of ``y``; ``result_``, the run's result, with the scores
    on validation images in ``result_.val``.

    >>> from tl_kit.sklearn import ImageClassifier
    >>> model = ImageClassifier(policy="head").fit(paths, labels)  # doctest: +SKIP
    >>> model.predict(["photo.jpg"])  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str = EstimatorConfig.model,
        policy: str = FinetuneConfig.policy,
        *,
        epochs: int | None = FinetuneConfig.epochs,
        batch_size: int | None = FinetuneConfig.batch_size,
        lr: float | Literal["auto"] | None = FinetuneConfig.lr,
        optimizer: str | None = FinetuneConfig.optimizer,
        augment: Any = FinetuneConfig.augment,
        img_size: int | None = FinetuneConfig.img_size,
        crop_mode: str = FinetuneConfig.crop_mode,
        weights: str = FinetuneConfig.weights,
        val_fraction: float = DataConfig.val_fraction,
        device: str = RuntimeConfig.device,
        seed: int = FinetuneConfig.seed,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.policy = policy
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.augment = augment
        self.img_size = img_size
        self.crop_mode = crop_mode
        self.weights = weights
        self.val_fraction = val_fraction
        self.device = device
        self.seed = seed
        self.options = options

    def fit(self, X: Any, y: Any, *, validation: tuple[Any, Any] | None = None) -> ImageClassifier:
        """Fine-tune the network on images ``X`` with labels ``y`` (n,).

        ``validation``: other images and their labels, which choose what is kept of head and trained network, and a
        temperature; nothing of ``X`` is set aside then. They train nothing, so that they can be scored. Where they
        are set aside here instead, the final head is fitted to them too once they have chosen (option ``refit``:
        True or False for either). Images that cannot be used are left out, with a warning; with the option ``strict``
        they are an error.

        Raises the errors of ``tl_kit.finetune``; SamplesError, a ValueError, and scikit-learn's errors, for ``X`` and
        ``y`` that do not go together; KeyboardInterrupt for Ctrl-C at any time.
        """
        images, labels = images_of(X), self._labels(y)
        check_consistent_length(images, labels)
        encoder = LabelEncoder().fit(labels)
        names = np.array(class_names(encoder.classes_.tolist()), dtype=object)
        if len(names) < 2:
            raise SamplesError(f"y has one class only, {encoder.classes_.tolist()[0]!r}; at least 2 are needed")
        with TemporaryDirectory(prefix="tlkit-") as scratch:
            folder = Path(scratch).resolve()
            table = TrainingTable(folder)
            config = self._config(table.path, out=folder / "run", refit=validation is None)
            table.add(images, names[encoder.transform(labels)].tolist(), split="" if validation is None else "train")
            others: list[Source] = []
            if validation is not None:
                others, of_others = _held_out(validation, encoder, names)
                table.add(others, of_others, name="validation", split="val")
            table.write()
            with table.named():
                result = finetune(config)
            if result.status != "finished":
                raise KeyboardInterrupt
            _warn_of_left_out(result, table)
            known = all(isinstance(image, Path) for image in (*images, *others))
            self._kept = KeptCheckpoint.read(Path(result.checkpoint), images_known=known)
        self.classes_ = encoder.classes_
        self._names = tuple(names.tolist())
        self.result_ = replace(result, checkpoint="")
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each image (n,), in the order of ``X``. Raises as :meth:`predict_proba`."""
        check_is_fitted(self)
        return np.asarray(self.classes_[np.argmax(self.predict_proba(X), axis=1)])

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities (n, classes) of the images, in the order of ``X`` and of ``classes_``.

        Raises SamplesError, naming the image, where one cannot be decoded.
        """
        check_is_fitted(self)
        images, config = images_of(X), self._config(Path("X"))
        predictor = self._kept.predictor(config.decode, config.runtime)
        stack, failures = predictor.member_probabilities(images)
        if failures:
            index, reason = next(iter(failures.items()))
            raise SamplesError(f"{source_name(images[index], index)}: {reason}")
        order = [predictor.classes.index(name) for name in self._names]
        return predictor.combine(stack)[:, order]

    def save(self, folder: Path | str) -> Path:
        """Write the fitted model as a checkpoint to a new folder, for ``tl_kit.load``, timm and the command line.

        Labels that cannot be class names there (blanks at their ends, line breaks, empty ones) are saved as "class 0",
        "class 1" ... in the order of ``classes_``, with a warning. Raises CheckpointError if the folder is not empty,
        or cannot be written.
        """
        check_is_fitted(self)
        if list(self._names) != [str(label) for label in self.classes_.tolist()]:
            first = self.classes_.tolist()[0]
            text = f"the labels cannot all be class names: {folder} calls them 'class 0' ({first!r}), 'class 1' ..."
            warnings.warn(text, UserWarning, stacklevel=2)
        return self._kept.write(Path(folder))

    def set_params(self, **params: Any) -> ImageClassifier:
        """Set parameters; ``options__NAME`` sets one of the ``options`` and leaves the others."""
        own = {name.removeprefix(_OWN): params.pop(name) for name in list(params) if name.startswith(_OWN)}
        super().set_params(**params)
        if own:
            self.options = {**(self.options or {}), **own}
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_kept")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = True
        return tags

    def _config(self, data: Path, *, out: Path | None = None, refit: bool = True) -> FinetuneConfig:
        """The run's configuration; ``refit``: that option's default. Raises ConfigError, naming what is wrong."""
        options = self.options or {}
        if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
            raise ConfigError(f"options {options!r:.60}: must be a mapping from names to values, or None")
        for name in options:
            if name.replace("-", "_") in self.get_params(deep=False):
                raise ConfigError(f"options: {name}: is a parameter of its own; give {name}=... itself")
            if name.replace("-", "_") in _OF_FOLDERS:
                raise ConfigError(f"options: {name}: is for runs in a folder; use tl_kit.finetune, or save afterwards")
        config = FinetuneConfig(
            model=self.model,
            data=data,
            policy=self.policy,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            optimizer=self.optimizer,
            augment=self.augment,
            img_size=self.img_size,
            crop_mode=self.crop_mode,
            weights=self.weights,
            split=DataConfig(val_fraction=self.val_fraction, test_fraction=0.0),
            runtime=RuntimeConfig(device=self.device),
            seed=self.seed,
            head=HeadConfig(refit=refit),
            out=out,
        )
        config = plain(config)
        check_numbers(config)
        config = with_options(config, options, where="options")
        if out is not None and "tensorboard" in config.tracking.track:
            raise ConfigError("options: track: tensorboard writes into a run's folder; use tl_kit.finetune for it")
        return config

    def _labels(self, y: Any) -> NDArray[Any]:
        """``y`` as scikit-learn's classifiers take it (n,). Raises its errors, all of them ValueErrors."""
        if y is None:
            name = type(self).__name__
            raise SamplesError(f"This {name} estimator requires y to be passed, but the target y is None.")
        labels = column_or_1d(y, warn=True)
        if labels.dtype == object and (bare := [place for place, label in enumerate(labels) if label is None]):
            raise SamplesError(
                f"y[{bare[0]}] is None ({len(bare)} of the {len(labels)} labels are): leave these images out"
            )
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        return np.asarray(labels)


def _held_out(given: tuple[Any, Any], encoder: LabelEncoder, names: NDArray[Any]) -> tuple[list[Source], list[str]]:
    """Validation images, and their class names. Raises SamplesError for labels that no training image has."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise SamplesError("validation: must be a pair of images and labels, (X, y)")
    images, labels = images_of(given[0], "validation"), column_or_1d(given[1])
    check_consistent_length(images, labels)
    if unknown := sorted(set(labels.tolist()) - set(encoder.classes_.tolist()), key=str):
        raise SamplesError(f"validation: no training image has the label {unknown[0]!r}")
    return images, names[encoder.transform(labels)].tolist()


def _warn_of_left_out(result: FinetuneResult, table: TrainingTable) -> None:
    if result.left_out:
        first = table.reworded(f"{result.left_out[0]['path']}: {result.left_out[0]['reason']}")
        count = len(result.left_out)
        text = (
            "1 image was left out of training"
            if count == 1
            else f"{count:,} images were left out of training, the first"
        )
        warnings.warn(f"{text}: {first}", UserWarning, stacklevel=3)
