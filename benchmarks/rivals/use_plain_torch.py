"""A plain timm and torch loop in the manner of PyTorch's transfer-learning tutorial, or timm features and scikit-learn.

``--policy``: ``full``; ``last:2``, with the layers below frozen by ``requires_grad``; ``features`` for scikit-learn.
"""

from __future__ import annotations

import time

import timm
import torch
from common import arguments, finish
from timm.data import create_transform, resolve_model_data_config
from timm.models import group_parameters
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder


def predict(model: torch.nn.Module, loader: DataLoader) -> tuple[torch.Tensor, torch.Tensor]:
    model.eval()
    with torch.no_grad():
        rows = [(model(images), labels) for images, labels in loader]
    outputs, labels = zip(*rows, strict=True)
    return torch.cat(outputs), torch.cat(labels)


def main() -> None:
    given = arguments()
    overlay = {"file": str(given.weights)}
    classes = 0 if given.policy == "features" else len(list((given.data / "train").iterdir()))
    model = timm.create_model(given.model, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay)
    config = resolve_model_data_config(model)
    plain = create_transform(**config, is_training=False)
    test = DataLoader(ImageFolder(given.data / "test", plain), batch_size=32, num_workers=2)
    if given.policy == "features":
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        train = DataLoader(ImageFolder(given.data / "train", plain), batch_size=32, num_workers=2)
        features, labels = predict(model, train)
        fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(features, labels)
        features, labels = predict(model, test)
        finish(test_accuracy=float(fitted.score(features, labels)))
        return
    augmented = create_transform(**config, is_training=True, color_jitter=None)
    train = DataLoader(
        ImageFolder(given.data / "train", augmented),
        batch_size=32,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
    )
    if given.policy.startswith("last:"):
        groups = group_parameters(model, model.group_matcher(coarse=True))
        kept = sorted(groups)[-int(given.policy.split(":")[1]) :]
        trainable = {name for group in kept for name in groups[group]}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trainable)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, given.epochs)
    rate = 0.0
    for _ in range(given.epochs):
        model.train()
        started = time.perf_counter()
        for images, labels in train:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        rate = len(train.dataset) / (time.perf_counter() - started)
        schedule.step()
    outputs, labels = predict(model, test)
    finish(test_accuracy=float((outputs.argmax(1) == labels).float().mean()), train_rate=rate)


if __name__ == "__main__":
    main()
