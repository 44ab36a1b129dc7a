"""scikit-learn: an image classifier and a frozen network's features as estimators."""

from tl_kit.sklearn.image_classifier import ImageClassifier
from tl_kit.sklearn.image_features import ImageFeatures

__all__ = ["ImageClassifier", "ImageFeatures"]
