"""The ``head`` policy without a learning rate: one pass of the trunk, then a logistic regression on its outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tl_kit.api.outcome import Outcome
from tl_kit.api.run import Run, labels_of
from tl_kit.data.transforms import normalize
from tl_kit.freezing.audit import frozen_tensors, run_audit
from tl_kit.freezing.modes import apply_policy
from tl_kit.inference import StoreReader, run_models
from tl_kit.training.head import HeadFit, fit_head
from tl_kit.training.journal import Journal
from tl_kit.training.trunk import Trunk, head_trunk
from tl_kit.zoo.heads import linear_classifier, set_linear

__all__ = ["fit_closed_form", "head_cut"]

SPLITS = ("train", "val", "test")


def head_cut(run: Run) -> Trunk | None:
    """The trunk below the linear classifier, if the run asks for the closed form and the cut is exact on a real batch."""
    optimizer = run.config.optimizer or run.config.loop.head_optimizer
    if run.policy.name != "head" or optimizer != "lbfgs":
        return None
    if run.config.epochs is not None or run.config.lr is not None:
        return None  # these are options of a gradient method, and so ask for one
    found = linear_classifier(run.model)
    if found is None:
        return None
    model = run.runtime.place(run.model).eval()
    samples = run.manifest.split("train")[: run.runtime.batch_size]
    pixels = torch.stack(run.store.get(samples, crop=True))
    return head_trunk(model, found[0], normalize(run.runtime.batch(pixels), run.preprocessing))


def fit_closed_form(run: Run, trunk: Trunk) -> Outcome:
    """Features of every split once, the fit, and the head's outputs on val and test."""
    trainable = run.trainable()
    apply_policy(run.model, trainable)
    run.model.eval()
    before = frozen_tensors(run.model)
    with run.clock("features"):
        features = _features(run, trunk)
    with run.clock("train"):
        fit = _fit(run, features)
        layer = run.model.get_submodule(trunk.cut)
        assert isinstance(layer, nn.Linear)
        set_linear(layer, fit.weight, fit.bias)
    Journal(run.folder if run.writes else None).write(strength=fit.strength, val_nll=fit.val_nll, iterations=fit.iterations)
    with run.clock("evaluate"):
        logits = {split: _replay(layer, features[split], run) for split in ("val", "test")}
    return Outcome(
        optimizer="lbfgs",
        epochs=0,
        best_epoch=0,
        trainable_parameters=sum(p.numel() for n, p in run.model.named_parameters() if n in trainable),
        logits=logits,
        audit=run_audit(run.model, before),
        settings={"C": fit.strength, "iterations": fit.iterations},
    )


def _features(run: Run, trunk: Trunk) -> dict[str, Tensor]:
    run.reporter.start("features", len(run.manifest.samples))
    found = {}
    for split in SPLITS:
        reader = StoreReader(run.store, run.manifest.split(split))
        found[split] = run_models([(trunk, run.preprocessing)], reader, run.runtime, reporter=run.reporter)[0]
    return found


def _fit(run: Run, features: dict[str, Tensor]) -> HeadFit:
    labels = {split: labels_of(run.manifest.split(split)) for split in ("train", "val")}
    fit = fit_head(
        features["train"].numpy(),
        labels["train"],
        len(run.manifest.classes),
        val_features=features["val"].numpy(),
        val_labels=labels["val"],
        config=run.config.head,
    )
    chosen = "validation" if len(labels["val"]) else "no validation images: the middle of the range"
    run.reporter.message(f"head: logistic regression, C = {fit.strength:g} ({chosen})")
    return fit


def _replay(layer: nn.Module, features: Tensor, run: Run) -> Tensor:
    """The head on cached features, in the inference loop's batches: the same sums in the same order."""
    with torch.inference_mode():
        rows = [layer(batch.to(run.runtime.device)).float().cpu() for batch in torch.split(features, run.runtime.batch_size)]
    return torch.cat(rows) if len(features) else torch.empty(0)
