"""The ``head`` policy without a learning rate: a logistic regression on the trunk's outputs."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor, nn

from tl_kit.config import HeadConfig
from tl_kit.data.manifest import Sample, labels_of
from tl_kit.errors import ConfigError
from tl_kit.finetuning.checks import as_head, gradient_options, head_config, is_head_only
from tl_kit.finetuning.head_folds import cross_validated_head, folds_for, penalty_folds
from tl_kit.finetuning.result import Outcome
from tl_kit.finetuning.run import Run, apply_trainable
from tl_kit.finetuning.trunk_reuse import Reuse, open_reuse
from tl_kit.freezing.audit import Audit, frozen_tensors, run_audit
from tl_kit.freezing.policies import HEAD
from tl_kit.storage.metrics_log import Journal
from tl_kit.training.logistic_regression import HeadFit, fit_head
from tl_kit.zoo.heads import linear_classifier, linear_tensors, set_linear

__all__ = [
    "fit_closed_form",
    "fit_head_first",
    "head_can_be_fitted",
    "head_run",
    "head_seconds",
    "in_closed_form",
    "is_linear",
    "refit_head",
    "remove_mean",
    "set_fitted_head",
    "tell_refit",
    "wants_closed_form",
]


def wants_closed_form(run: Run, reuse: Reuse) -> bool:
    """True where the head is one linear layer on flat features, and the run asks for no gradient method.

    An option that only gradient methods have (``--epochs``, ``--lr``, ``--dropout``, ...) asks for one.
    """
    return (
        run.policy.head_only
        and is_head_only(run.config.optimizer or run.config.head.solver)
        and not gradient_options(run.config)
        and is_linear(run, reuse)
    )


def fit_closed_form(run: Run, reuse: Reuse, *, alone: bool = False) -> Outcome:
    """Features of every split once, the fit, and the head's outputs on val and test.

    A run that is ``alone``, and not one of several on the same images, gets its cross-validated scores too.
    """
    if run.config.batch_size is not None:
        run.reporter.message("--batch-size changes nothing here: the head is fitted on all images at once")
    before = frozen_tensors(run.model)
    for split in ("train", "val", "test"):
        reuse.fill(split)
    fit = set_fitted_head(run, reuse)
    with run.clock("train"):
        scores = cross_validated_head(run, reuse) if alone else None
    with run.clock("evaluate"):
        logits = {"val": reuse.logits("val")}
    held_out = refit_head(run, reuse, fit)
    if held_out is not None:
        tell_refit(run)
    with run.clock("evaluate"):
        logits["test"] = reuse.logits("test")
    return Outcome(
        epochs=0,
        best_epoch=0,
        trainable_parameters=sum(p.numel() for p in run.model.parameters() if p.requires_grad),
        logits=logits,
        audit=run_audit(run.model, before),
        chosen_by_val=(),
        settings={
            "optimizer": fit.solver,
            "C": fit.c,
            "strength": fit.strength,
            "iterations": fit.iterations,
            "balance": "none" if run.balance.value == "none" else "loss",
            "select": "nll",
        },
        cross_validated=scores,
        held_out_head=held_out,
    )


def set_fitted_head(run: Run, reuse: Reuse, *, logged: bool = True) -> HeadFit:
    """Fit the head to the features of the training images, which are computed where they lack; the model takes it.

    ``logged``: whether the fit has a row in the run's log.
    """
    reuse.fill("train")
    config = head_config(run.config)
    with run.clock("train"):
        fit = _fit(run, reuse, run.manifest.split("train"), config)
        _set(run, reuse, fit)
    _tell(run, fit, config)
    Journal(run.folder if run.writes and logged else None).write(
        strength=fit.strength, c=fit.c, nll=fit.nll, tried=fit.tried, iterations=fit.iterations
    )
    return fit


def refit_head(run: Run, reuse: Reuse, fit: HeadFit) -> dict[str, Tensor] | None:
    """Fit the head to training and validation images at the strength of ``fit``; the model takes it.

    The penalty per image is the same, so that scikit-learn's C is smaller; a C that the user gave stays.
    Returns the tensors, on the CPU, of the classifier that it replaces. None, and the model is as it was, without
    validation images or where the run's ``head.refit`` is off. The features of both splits must have been filled.
    """
    if not run.config.head.refit or not run.manifest.split("val"):
        return None
    samples, config = (*run.manifest.split("train"), *run.manifest.split("val")), head_config(run.config)
    before = linear_tensors(run.model)
    with run.clock("train"):
        again = _fit(run, reuse, samples, replace(config, strengths=(fit.strength,)))
        _set(run, reuse, again)
    if fit.converged and not again.converged:
        _warn_unconverged(run, again)
    return before


def tell_refit(run: Run) -> None:
    """Say that the head that the run ends with was fitted to validation images too."""
    images = len(run.manifest.split("train")) + len(run.manifest.split("val"))
    run.reporter.message(
        f"head: fitted again, to the {images:,} training and validation images; the scores on val are those from before"
    )


def fit_head_first(run: Run) -> Audit:
    """Fit the head to the pretrained features, strongly penalised; the model keeps it, all else unchanged.

    Its outputs do not depend on the features' part along their mean (:func:`remove_mean`).

    Raises ConfigError for a classifier that is not one linear layer on flat features.
    """
    strongly = replace(run.config.head, strengths=(run.config.head.start_strength,), c=None)
    head, reuse = head_run(run, config=strongly)
    if reuse is None or not is_linear(head, reuse):
        raise ConfigError(
            f"--policy {run.policy}: fits the head first, and that of {run.config.model} is no single linear layer on "
            "flat features; use --policy full or last:K"
        )
    before = frozen_tensors(head.model)
    set_fitted_head(head, reuse)
    remove_mean(_layer(run, reuse), reuse.rows(run.manifest.split("train")).float().mean(dim=0))
    return run_audit(head.model, before)


@torch.no_grad()
def remove_mean(layer: nn.Linear, mean: Tensor) -> None:
    """Take the direction of the features' ``mean`` (d,) out of a layer's weights; its outputs at the mean stay.

    Pooled activations have a large common mean. A fitted head uses it, and balances it by its bias. Once the layers
    below train, both no longer fit, and among many classes a bias is slow to follow: the gradient of each is about one
    by the number of classes. A layer without a bias is left as it is.
    """
    if layer.bias is None or not mean.any():
        return
    mean = mean.to(layer.weight)
    at_mean = layer.weight @ mean
    layer.bias.add_(at_mean)
    layer.weight.sub_(torch.outer(at_mean, mean) / mean.square().sum())


def head_run(run: Run, *, config: HeadConfig | None = None) -> tuple[Run, Reuse | None]:
    """The same run under ``--policy head``, its policy applied, and the reuse of all that this freezes.

    ``config``: of the head, where it is not the run's own.
    """
    changed = replace(as_head(run.config), head=config or run.config.head, batch_size=None)
    head = replace(run, policy=HEAD, config=changed)
    return head, open_reuse(head, apply_trainable(head, head.trainable()))


def in_closed_form(run: Run) -> bool:
    """True where the run, at its start, will fit its head in closed form."""
    if not run.policy.head_only or gradient_options(run.config):
        return False
    head, reuse = head_run(run)
    return reuse is not None and wants_closed_form(head, reuse)


def head_can_be_fitted(run: Run) -> bool:
    """True where the classifier is one linear layer on flat features."""
    head, reuse = head_run(run)
    return reuse is not None and is_linear(head, reuse)


def head_seconds(run: Run, reuse: Reuse) -> float:
    """Seconds that the fits take, measured on the training images, whose features must have been filled.

    Nested cross-validation counts as two fits more: it has ten paths of penalties, where the choice of one has five.
    """
    samples = run.manifest.split("train")
    features, labels = reuse.rows(samples).float().flatten(1).numpy(), labels_of(samples)
    started = time.perf_counter()
    fit_head(features, labels, len(run.manifest.classes), device=run.runtime.gpu, config=head_config(run.config))
    nested = in_closed_form(run) and not isinstance(folds_for(run, reuse), str)
    return (time.perf_counter() - started) * (3 if nested else 1)


def is_linear(run: Run, reuse: Reuse) -> bool:
    """True where the rows are the inputs of one linear layer, which makes the model's outputs of them."""
    found = linear_classifier(run.model)
    return found is not None and found[0] == reuse.features.tail.cut and reuse.features.tail.direct


def _fit(run: Run, reuse: Reuse, samples: tuple[Sample, ...], config: HeadConfig) -> HeadFit:
    labels = labels_of(samples)
    return fit_head(
        reuse.rows(samples).float().numpy(),
        labels,
        len(run.manifest.classes),
        folds=penalty_folds(samples, folds=config.folds, seed=run.config.split.split_seed),
        weights=run.image_weights(labels),
        device=run.runtime.gpu,
        config=config,
    )


def _set(run: Run, reuse: Reuse, fit: HeadFit) -> None:
    set_linear(_layer(run, reuse), fit.weight, fit.bias)


def _layer(run: Run, reuse: Reuse) -> nn.Linear:
    """The classifier that :func:`is_linear` found."""
    layer = run.model.get_submodule(reuse.features.tail.cut)
    assert isinstance(layer, nn.Linear)
    return layer


def _tell(run: Run, fit: HeadFit, config: HeadConfig) -> None:
    if run.balance.value == "sampler":
        run.reporter.message("balance sampler: the head is fitted to all images at once, each weighted as it is drawn")
    run.reporter.message(
        f"head: logistic regression, C = {fit.c:.3g}, {_origin(fit, config)}"
        + (", where every class counts the same" if run.balance.value != "none" else "")
    )
    if not fit.converged:
        _warn_unconverged(run, fit)


def _warn_unconverged(run: Run, fit: HeadFit) -> None:
    run.reporter.message(
        f"the head's fit has not converged in {fit.iterations} steps: a stronger penalty needs fewer (--opt C=...)"
    )


def _origin(fit: HeadFit, config: HeadConfig) -> str:
    """Origin of the penalty, in a phrase."""
    if fit.held_out:
        return f"cross-validated on {fit.held_out:,} training images"
    if config.c is not None:
        return "as given"
    if len(config.strengths) == 1:
        return "a fixed penalty"
    return "the usual penalty: too few images to cross-validate it"
