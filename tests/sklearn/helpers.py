"""Options of estimators whose fit takes half a second."""

from __future__ import annotations

from typing import Any

from tl_kit.sklearn import ImageClassifier, ImageFeatures

SMALL: dict[str, Any] = {"model": "test_resnet", "weights": "none", "img_size": 32}


def classifier(**params: Any) -> ImageClassifier:
    return ImageClassifier(**{**SMALL, "policy": "head", **params})


def features(**params: Any) -> ImageFeatures:
    return ImageFeatures(**{**SMALL, **params})
