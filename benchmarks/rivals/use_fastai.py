"""fastai as its documentation shows it: ``vision_learner`` and ``fine_tune``."""

from __future__ import annotations

import time

from common import arguments, finish
from fastai.callback.core import Callback
from fastai.vision.all import (
    ImageDataLoaders,
    Resize,
    accuracy,
    aug_transforms,
    get_image_files,
    vision_learner,
)


class Rate(Callback):
    """Images a second of each epoch's training part."""

    rates: list[float] = []  # noqa: RUF012 - read after the run

    def before_train(self) -> None:
        self.started = time.perf_counter()

    def after_train(self) -> None:
        Rate.rates.append(len(self.dls.train_ds) / (time.perf_counter() - self.started))


def main() -> None:
    given = arguments()
    loaders = ImageDataLoaders.from_folder(
        given.data, train="train", valid="val", item_tfms=Resize(256), batch_tfms=aug_transforms(size=224), bs=32
    )
    learner = vision_learner(
        loaders, given.model, metrics=accuracy, pretrained_cfg_overlay={"file": str(given.weights)}, cbs=Rate()
    )
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(given.epochs)
        files = sorted(get_image_files(given.data / "test"))
        predictions, _ = learner.get_preds(dl=loaders.test_dl(files))
    names = [loaders.vocab[index] for index in predictions.argmax(1)]
    right = sum(name == file.parent.name for name, file in zip(names, files, strict=True))
    finish(test_accuracy=right / len(files), train_rate=Rate.rates[-1])


if __name__ == "__main__":
    main()
