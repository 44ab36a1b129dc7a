"""Guard of a run that trains below its head: it ends no worse than the head fitted to the pretrained features.

The head is fitted in closed form, to training images, before anything trains. After training, the validation images
compare it with the network that training ended with and with averages of their weights (Wortsman et al. 2022, "Robust
fine-tuning of zero-shot models"); the run keeps one of them. Trained on few images, a network is too sure of itself:
each of these takes the temperature that fits validation (Guo et al. 2017), which its classifier's weights are divided
by, so that it is compared, and kept, as sure as it may be. A head that is kept, alone or in an average, is fitted
again, to validation images too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_kit import metrics
from tl_kit.combining.calibration import fit_temperature, tempered
from tl_kit.combining.head_choice import choose_network, clearly_better
from tl_kit.data.manifest import labels_of
from tl_kit.errors import NonFiniteError, TrainingError
from tl_kit.finetuning.batch_sources import Source
from tl_kit.finetuning.closed_form import head_run, is_linear, refit_head, set_fitted_head
from tl_kit.finetuning.head_folds import refit_predictions
from tl_kit.finetuning.kept_weights import new_statistics
from tl_kit.finetuning.result import Guarded, Waypoint
from tl_kit.finetuning.run import Run, Settled
from tl_kit.finetuning.saved_state import changing_names
from tl_kit.machine.process_group import first_answer
from tl_kit.storage.checkpoint import load_checkpoint, save_config, save_held_out_head, save_weights
from tl_kit.training.averaging import average_weights
from tl_kit.training.task import Task
from tl_kit.zoo.heads import in_modules, linear_classifier, linear_tensors

__all__ = [
    "FittedHead",
    "compare_with_head",
    "first_weights",
    "fit_guard",
    "is_guarded",
    "networks_compared",
    "take_final_head",
    "take_settled",
]

HEAD, TRAINED = "head", "trained"
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class FittedHead:
    """The pretrained network under its fitted head: all tensors that the run may change, on the CPU, and the C.

    ``final``: the classifier's tensors, fitted to the validation images too, for a run that ends with the head; None
    where it is fitted once. ``expected``: by digest, the probabilities (k,) of each validation image: ``out_of_fold``,
    by a final head that was fitted to all other images, else by the head itself.
    """

    state: State
    strength: float
    expected: Mapping[str, NDArray[np.float64]]
    final: State | None = None
    out_of_fold: bool = False


@dataclass(frozen=True)
class _Candidate:
    """A network to choose, its share of what was trained, and its probabilities (n, k) of the validation images.

    ``temperature`` is the one that its classifier has been divided by.
    """

    name: str
    alpha: float
    temperature: float
    state: State
    probabilities: NDArray[np.float64]


def is_guarded(run: Run) -> bool:
    """True where something below the head trains, from pretrained weights, and validation images can compare."""
    return (
        run.config.guard.head_guard
        and bool(run.weights.loaded)
        and not run.policy.head_only
        and bool(run.manifest.split("val"))
    )


def networks_compared(run: Run) -> int:
    """The number of networks that a guarded run compares: the head's, the trained one, and the averages."""
    return 2 + len(run.config.guard.alphas)


def fit_guard(run: Run) -> FittedHead | None:
    """Fit the head to the pretrained features; the model is left as it was. None, with a word, where it has none.

    A run whose share of the head is settled has no validation images: of its head there are state and C alone.
    """
    if not (is_guarded(run) or (run.settled is not None and run.settled.alpha < 1)):
        return None
    head, reuse = head_run(run)
    if reuse is None or not is_linear(head, reuse):
        run.reporter.message(
            f"no fitted head to compare with: that of {run.config.model} is no single linear layer on flat features"
        )
        return None
    own = _state(run)
    fit = set_fitted_head(head, reuse, logged=False)
    state = _state(run)
    if run.settled is not None:
        _load(run, own)
        return FittedHead(state, fit.c, {})
    reuse.fill("val")
    with run.clock("evaluate"):
        rows = _probabilities(reuse.logits("val"))
    if rows is None:
        raise NonFiniteError("the outputs of the pretrained network under its fitted head are not finite")
    found, final = None, None
    if refit_head(head, reuse, fit) is not None:
        final = linear_tensors(run.model)
        if run.config.guard.refitted:
            with run.clock("train"):
                found = refit_predictions(head, reuse, strength=fit.strength)
    _load(run, own)
    digests = [sample.digest for sample in run.manifest.split("val")]
    expected = dict(zip(digests, rows if found is None else found, strict=True))
    return FittedHead(state, fit.c, expected, final, out_of_fold=found is not None)


def take_final_head(
    run: Run, head: FittedHead, *, alpha: float = 0.0, temperature: float = 1.0
) -> Mapping[str, Tensor] | None:
    """Give the model the head that was fitted to the validation images too, where there is one.

    The model is the pretrained network under its head; or an average of it and the trained network (``alpha`` and
    ``temperature`` are those of :class:`Guarded`), in which the head's share is replaced. Returns the tensors of the
    classifier before. None, and the model is as it was, without another head, or if the trained network alone is kept.
    """
    if head.final is None or alpha == 1:
        return None
    before, final = linear_tensors(run.model), head.final
    if alpha:
        share = (1 - alpha) / temperature
        final = {name: before[name] + share * (tensor - head.state[name]) for name, tensor in final.items()}
    _load(run, final)
    return before


def take_settled(
    run: Run, settled: Settled, head: FittedHead | None, source: Source, *, task: Task, epoch: int
) -> None:
    """Give the model what the first training's guard kept: the average, and the temperature.

    ``head``: needed for an average. ``task`` and ``epoch`` as in :func:`compare_with_head`. Raises TrainingError where
    the head of an average could not be fitted.
    """
    state: State = _state(run)
    if settled.alpha < 1:
        if head is None:
            raise TrainingError(f"{settled.first}: the head of the average that its guard kept cannot be fitted again")
        state = _between(run, head, source, state, alpha=settled.alpha, task=task, epoch=epoch)
    _load(run, _softened(run, state, settled.temperature) if settled.temperature != 1 else state)


def first_weights(run: Run, settled: Settled) -> dict[str, Tensor]:
    """The tensors of the first training's network that the second has changed, as they were on validation images.

    Raises CheckpointError where its folder cannot be read.
    """
    first = load_checkpoint(settled.first, mapped=True, held_out=True).model.state_dict()
    own = run.model.state_dict()
    return {name: tensor for name, tensor in first.items() if not torch.equal(tensor, own[name].cpu())}


def compare_with_head(
    run: Run, head: FittedHead, source: Source, *, task: Task, select: str, epoch: int, step: int
) -> Guarded:
    """Compare, on validation, what training ended with and the head; the model is left with what is kept.

    ``task`` has the training images, for BatchNorm's statistics of averages. ``epoch`` is the best one; 0 if none has
    ended: then the head is kept. ``step``: the updates up to then.
    """
    labels = labels_of(run.manifest.split("val"))
    found = list(_candidates(run, head, source, labels, task=task, epoch=epoch)) if epoch else []
    expected = np.stack([head.expected[sample.digest] for sample in run.manifest.split("val")])
    found.append(_Candidate(HEAD, 0.0, 1.0, head.state, expected))
    config = run.config.guard
    position = choose_network(
        [each.probabilities for each in found],
        labels,
        head=len(found) - 1,
        select=select,
        config=config,
    )
    kept = found[first_answer(position)]
    beside = None
    other = found[0] if kept.name == HEAD else found[-1]
    both = (kept.probabilities + other.probabilities) / 2
    if other is not kept and first_answer(clearly_better(both, kept.probabilities, labels, errors=config.beside)):
        beside = _written(run, other, source, head=head, step=step if other.name == TRAINED else 0)
    _load(run, kept.state)
    result = Guarded(
        kept=kept.name,
        alpha=kept.alpha,
        temperature=kept.temperature,
        strength=head.strength,
        compared={each.name: _figures(each.probabilities, labels) for each in found},
        together=_figures(both, labels) if other is not kept else None,
        beside=beside,
        out_of_fold=head.out_of_fold,
    )
    run.reporter.message(_said(result, len(labels), select))
    return result


def _candidates(
    run: Run, head: FittedHead, source: Source, labels: NDArray[np.int64], *, task: Task, epoch: int
) -> Iterator[_Candidate]:
    """The trained network, and the averages, the most of it first; each at the temperature that fits best."""
    trained = _state(run)
    for alpha in (1.0, *sorted(run.config.guard.alphas, reverse=True)):
        state: State = trained
        if alpha != 1:
            state = _between(run, head, source, trained, alpha=alpha, task=task, epoch=epoch)
        probabilities = _outputs(run, state, source)
        if probabilities is None:  # what lies between two networks may leave the range of both
            continue
        temperature = fit_temperature(probabilities, labels)
        yield _Candidate(
            name=TRAINED if alpha == 1 else f"average {alpha:g}",
            alpha=alpha,
            temperature=temperature,
            state=_softened(run, state, temperature),
            probabilities=tempered(probabilities, temperature),
        )


def _between(
    run: Run, head: FittedHead, source: Source, trained: State, *, alpha: float, task: Task, epoch: int
) -> State:
    """The average of head and trained network, which the model is left with.

    The mean of two networks' BatchNorm statistics is not that of the averaged weights' activations (Izmailov et al.
    2018, section 3.2): where BatchNorm trains with those of the batch, they are estimated anew.
    """
    state = _average(head.state, trained, alpha)
    _load(run, state)
    renewed = new_statistics(run, task, source, epoch=epoch, most=run.config.guard.statistics_images)
    return _state(run) if renewed else state


def _average(head: State, trained: State, alpha: float) -> dict[str, Tensor]:
    """(1 - α) head + α trained. What is equal in both stays so to the last bit."""
    differ = [name for name, tensor in trained.items() if not torch.equal(tensor, head[name])]
    mixed = average_weights([{name: state[name] for name in differ} for state in (head, trained)], [1 - alpha, alpha])
    return {**trained, **mixed}


def _softened(run: Run, state: State, temperature: float) -> State:
    """The same with logits divided by a temperature: the classifier's weights and biases are."""
    found = linear_classifier(run.model)
    assert found is not None
    return {n: tensor / temperature if in_modules(n, (found[0],)) else tensor for n, tensor in state.items()}


def _outputs(run: Run, state: State, source: Source) -> NDArray[np.float64] | None:
    """Probabilities (n, k) of the validation images under these tensors; None if an output is not finite."""
    _load(run, state)
    return _probabilities(source.logits("val"))


def _probabilities(logits: Tensor) -> NDArray[np.float64] | None:
    values = logits.numpy().astype(np.float64)
    return metrics.softmax(values) if np.isfinite(values).all() else None


def _written(run: Run, candidate: _Candidate, source: Source, *, head: FittedHead, step: int) -> Waypoint:
    """Another network of the run's as a checkpoint folder beside its own."""
    _load(run, candidate.state)
    folder, logits = run.folder / candidate.name, {"val": source.logits("val")}
    held_out = take_final_head(run, head) if candidate.name == HEAD else None
    if run.writes:
        folder.mkdir(exist_ok=True)
        save_config(folder, run.model, run.manifest.classes, run.preprocessing)
        save_held_out_head(folder, held_out, model=run.model)
        save_weights(folder, run.model)
    logits["test"] = source.logits("test")
    chosen = () if candidate.name == HEAD else ("epoch", "temperature")
    return Waypoint(folder=folder, step=step, logits=logits, chosen_by_val=chosen, refit=held_out is not None)


def _state(run: Run) -> dict[str, Tensor]:
    """A copy, on the CPU, of the tensors that the run may change."""
    names = changing_names(run)
    return {n: t.detach().cpu().clone() for n, t in run.model.state_dict().items() if n in names}


@torch.no_grad()
def _load(run: Run, state: State) -> None:
    for name, tensor in run.model.state_dict().items():
        if name in state:
            tensor.copy_(state[name])


def _figures(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    return {
        "accuracy": metrics.accuracy(probabilities, labels),
        "balanced_accuracy": metrics.balanced_accuracy(probabilities, labels),
        "nll": metrics.nll(probabilities, labels),
        "bounded_nll": metrics.bounded_nll(probabilities, labels),
    }


def _said(guarded: Guarded, images: int, select: str) -> str:
    """The comparison and its outcome, in a sentence."""
    if len(guarded.compared) == 1:
        return f"no epoch has ended: the head is kept, fitted with C = {guarded.strength:g}"
    figure = "balanced_accuracy" if select == "balanced_accuracy" else "accuracy"
    rows = [f"{name} {row[figure]:.1%}, {row['bounded_nll']:.3f}" for name, row in guarded.compared.items()]
    name = figure.replace("_", " ")
    kept = f"{guarded.phrase} is kept" + (f", at temperature {guarded.temperature:.2f}" if guarded.alpha else "")
    how = "; the head's cross-validated over train and val" if guarded.out_of_fold else ""
    return f"compared on {images} images of val ({name}, bounded nll{how}): {'; '.join(rows)}: {kept}"
