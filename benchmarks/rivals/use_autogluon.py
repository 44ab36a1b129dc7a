"""AutoGluon as its documentation shows it: ``MultiModalPredictor`` on a table of image paths, its own 20 epochs."""

from __future__ import annotations

import tempfile
from typing import Any

import pandas as pd
import timm
from common import arguments, finish


def main() -> None:
    given = arguments()
    original = timm.create_model

    def create_model(name: str, **options: Any) -> Any:
        """timm's, with the weights from a file instead of a download."""
        overlay = {"file": str(given.weights)} if options.get("pretrained") else None
        return original(name, **options, pretrained_cfg_overlay=overlay)

    timm.create_model = create_model
    from autogluon.multimodal import MultiModalPredictor  # after the change, since it imports the function by name

    def table(split: str) -> pd.DataFrame:
        files = sorted(path for path in (given.data / split).rglob("*") if path.is_file())
        return pd.DataFrame({"image": [str(path) for path in files], "label": [path.parent.name for path in files]})

    options: dict[str, Any] = {"model.names": ["timm_image"], "model.timm_image.checkpoint_name": given.model}
    if given.epochs:
        options["optim.max_epochs"] = given.epochs
    with tempfile.TemporaryDirectory() as folder:
        predictor = MultiModalPredictor(
            label="label", problem_type="multiclass", eval_metric="accuracy", path=folder, verbosity=0
        )
        predictor.fit(table("train"), tuning_data=table("val"), hyperparameters=options)
        scores = predictor.evaluate(table("test"), metrics=["accuracy"])
    finish(test_accuracy=float(scores["accuracy"]))


if __name__ == "__main__":
    main()
