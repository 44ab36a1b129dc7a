"""Classes of uneven size in a run: who decides, what it does to the weights, and which epoch is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.helpers import MODEL, Listener, quick, same, settings_of, weights, write_images
from tl_kit import FinetuneConfig, HeadConfig, RuntimeConfig, finetune
from tl_kit.config import RegularizationConfig
from tl_kit.errors import ConfigError
from tl_kit.finetuning.batch_sources import PlainSource, ReusedSource
from tl_kit.optimization.feature_scaling import fit_scaling
from tl_kit.training import loop
from tl_kit.training.batch_order import balanced_batches
from tl_kit.training.loop import share_of
from tl_kit.training.task import Indices, Task

UNEVEN = {"red": 12, "green": 3, "blue": 2}


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("even")
    for number, split in enumerate(("train", "val")):
        write_images(root / split, images=6, seed=number)
    return root


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("uneven")
    for name, images in UNEVEN.items():
        write_images(root / "train", (name,), images=images, seed=0)
        write_images(root / "val", (name,), images=max(2, images // 2), seed=1)
    return root


def messages(data: Path, out: Path, **options: Any) -> list[str]:
    listener = Listener()
    config = FinetuneConfig(
        model=MODEL,
        data=data,
        weights="none",
        img_size=32,
        out=out,
        runtime=RuntimeConfig(precision="fp32"),
        **options,
    )
    finetune(config, reporter=listener)
    return listener.messages


@pytest.mark.parametrize(
    ("options", "words"), [({"balance": "weights"}, "--balance weights"), ({"select": "f1"}, "--select f1: known are")]
)
def test_a_name_that_does_not_exist_is_refused(even: Path, tmp_path: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        quick(even, tmp_path / "run", **options)


@pytest.mark.parametrize("policy", ["head", "last:2"])
def test_even_classes_make_loss_and_none_the_same_bit_for_bit(even: Path, tmp_path: Path, policy: str) -> None:
    options = {"policy": policy, **({"epochs": None} if policy == "head" else {})}
    for balance in ("none", "loss", "auto"):
        quick(even, tmp_path / balance, balance=balance, **options)
    assert same(weights(tmp_path / "none"), weights(tmp_path / "loss"))
    assert same(weights(tmp_path / "none"), weights(tmp_path / "auto"))
    assert settings_of(tmp_path / "auto")["balance"] == "none"


@pytest.mark.parametrize("policy", ["head", "last:2", "full", "lp-ft"])
def test_uneven_classes_get_the_loss_by_themselves_and_it_is_in_the_settings(
    uneven: Path, tmp_path: Path, policy: str
) -> None:
    epochs: dict[str, Any] = {} if policy == "head" else {"epochs": 2, "keep_epoch": "best"}
    said = messages(uneven, tmp_path / "auto", policy=policy, **epochs)
    assert any("2 to 12 training images a class, 6 times as many in the largest" in text for text in said)
    selected = any("the best epoch is that of the highest balanced accuracy in validation" in text for text in said)
    fitted = any("C = " in text and "where every class counts the same" in text for text in said)
    assert selected == (policy != "head")
    assert fitted == (policy in ("head", "lp-ft"))
    assert settings_of(tmp_path / "auto")["balance"] == "loss"
    assert settings_of(tmp_path / "auto")["select"] == ("nll" if policy == "head" else "balanced_accuracy")
    messages(uneven, tmp_path / "loss", policy=policy, balance="loss", **epochs)
    messages(uneven, tmp_path / "none", policy=policy, balance="none", **epochs)
    assert same(weights(tmp_path / "auto"), weights(tmp_path / "loss"))
    assert not same(weights(tmp_path / "auto"), weights(tmp_path / "none"))


def test_a_head_under_the_sampler_is_the_weighted_one_and_says_so(uneven: Path, tmp_path: Path) -> None:
    for balance in ("loss", "sampler"):
        said = messages(uneven, tmp_path / balance, policy="head", balance=balance)
        assert any(text.startswith("balance sampler: the head") for text in said) == (balance == "sampler")
        assert settings_of(tmp_path / balance)["balance"] == "loss"
    assert same(weights(tmp_path / "loss"), weights(tmp_path / "sampler"))


def test_a_balanced_head_is_scikit_learns(uneven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LogisticRegression

    from tl_kit.finetuning import closed_form

    seen: list[tuple[np.ndarray, np.ndarray]] = []
    fit = closed_form.fit_head

    def noting(features: np.ndarray, labels: np.ndarray, *rest: object, **options: Any) -> object:
        seen.append((features, labels))
        return fit(features, labels, *rest, **options)

    monkeypatch.setattr(closed_form, "fit_head", noting)
    head = HeadConfig(c=0.5, fine=1e-7, solver="newton", refit=False)
    quick(uneven, tmp_path / "run", policy="head", epochs=None, balance="loss", head=head)
    (features, labels), found = seen[0], weights(tmp_path / "run")
    balanced = np.array([17 / (3 * count) for count in np.bincount(labels)])[labels]
    scaling = fit_scaling(features, weights=balanced)
    reference = LogisticRegression(C=0.5, class_weight="balanced", tol=1e-8, max_iter=5000)
    reference.fit(scaling(features), labels)
    ours = (features @ found["fc.weight"].numpy().T + found["fc.bias"].numpy()).astype(np.float64)
    theirs = reference.decision_function(scaling(features))
    centred = [logits - logits.mean(axis=1, keepdims=True) for logits in (ours, theirs)]
    np.testing.assert_allclose(*centred, atol=0.02)


def _first_step(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor, float]]:
    """Logits, labels and loss of each step that a run makes."""
    seen: list[tuple[Tensor, Tensor, float]] = []
    original = loop.train_step

    def noting(task: Task, accelerator: object, inputs: Tensor, labels: Tensor, *, step: int) -> float:
        kept: list[Tensor] = []
        objective = task.loss.objective

        def spying(logits: Tensor, targets: Tensor) -> Tensor:
            kept.append(logits.detach())
            return objective(logits, targets)

        value = original(_replaced(task, spying), accelerator, inputs, labels, step=step)
        seen.append((kept[0], labels, value))
        return value

    monkeypatch.setattr(loop, "train_step", noting)
    return seen


def _replaced(task: Task, objective: Callable[[Tensor, Tensor], Tensor]) -> Task:
    from dataclasses import replace

    return replace(task, loss=replace(task.loss, objective=objective))


def test_the_loss_of_a_run_is_torchs_weighted_mean(
    uneven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _first_step(monkeypatch)
    quick(uneven, tmp_path / "run", balance="loss")
    counts = torch.tensor([2.0, 3.0, 12.0])  # blue, green, red
    assert len(seen) == 6
    for logits, labels, loss in seen:
        assert loss == pytest.approx(float(functional.cross_entropy(logits, labels, weight=17 / (3 * counts))))


def test_mixed_and_smoothed_labels_take_the_weights_too(
    uneven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _first_step(monkeypatch)
    mixing = RegularizationConfig(mixup=1.0, label_smoothing=0.1)
    quick(uneven, tmp_path / "run", balance="loss", regularization=mixing)
    each = 17 / (3 * torch.tensor([2.0, 3.0, 12.0]))
    for logits, labels, loss in seen:
        assert labels.shape == (len(logits), 3)
        alone = torch.stack(
            [
                functional.cross_entropy(logits, torch.full((len(logits),), c), reduction="none", label_smoothing=0.1)
                for c in range(3)
            ],
            dim=1,
        )
        expected = (labels * each * alone).sum() / (labels * each).sum()
        assert loss == pytest.approx(float(expected), rel=1e-5)


def test_the_sampler_draws_every_class_equally_often_in_as_many_steps(
    uneven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _first_step(monkeypatch)
    quick(uneven, tmp_path / "run", balance="sampler")
    assert [len(labels) for _, labels, _ in seen] == [6, 6, 5] * 2
    for epoch in (seen[:3], seen[3:]):
        counts = torch.bincount(torch.cat([labels for _, labels, _ in epoch]))
        assert sorted(counts.tolist()) == [5, 6, 6]


@pytest.mark.parametrize("policy", ["last:2", "full"])
def test_an_image_that_is_drawn_again_is_varied_anew(
    uneven: Path, tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = ReusedSource if policy == "last:2" else PlainSource
    seen: dict[tuple[int, int], list[Tensor]] = {}
    original = kind.batch

    def noting(self: Any, indices: Indices, epoch: int) -> tuple[Tensor, Tensor]:
        inputs, labels = original(self, indices, epoch)
        for index, row, label in zip(indices, inputs, labels, strict=True):
            assert int(label) == self.labels[index % 17]
            seen.setdefault((epoch, int(index) % 17), []).append(row.clone())
        return inputs, labels

    monkeypatch.setattr(kind, "batch", noting)
    quick(uneven, tmp_path / "run", policy=policy, balance="sampler", epochs=4)
    often = [rows for rows in seen.values() if len(rows) > 1]
    assert often, "two blue images make five or six draws an epoch"
    for rows in often:
        assert not torch.equal(rows[0], rows[1])


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_samplers_batches(processes: int) -> None:
    labels = np.repeat([0, 1, 2], [12, 3, 2])
    for batch in balanced_batches(labels, 6, seed=0, epoch=0):
        shares = [
            share_of(batch, SimpleNamespace(process_index=number, num_processes=processes))
            for number in range(processes)
        ]
        assert sorted(np.concatenate(shares)) == sorted(batch)


def test_under_the_sampler_the_same_seed_gives_the_same_weights_and_another_seed_others(
    uneven: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        quick(uneven, tmp_path / name, policy="gradual", balance="sampler", epochs=3, seed=seed)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


SELECTABLE = {"accuracy": max, "balanced-accuracy": max, "macro-f1": max, "nll": min}


@pytest.mark.parametrize("name", SELECTABLE)
def test_the_epoch_kept_is_the_best_by_the_figure_selected(uneven: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "run"
    run = quick(uneven, out, select=name, epochs=6, patience=6, optimizer="sgd", lr=0.5, schedule="constant")
    figure, best = name.replace("-", "_"), SELECTABLE[name]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    extreme = best(row[f"val_{figure}"] for row in rows)
    equal = [row for row in rows if row[f"val_{figure}"] == extreme]
    expected = min(equal, key=lambda row: row["val_nll"])
    assert json.loads((out / "tlkit.json").read_text())["best_epoch"] == expected["epoch"]
    assert run.val is not None
    assert run.val[figure] == extreme
    assert settings_of(out)["select"] == figure


def test_a_head_in_closed_form_has_no_epoch_to_select(uneven: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--select macro-f1: a head fitted in closed form has no epochs"):
        quick(uneven, tmp_path / "run", policy="head", epochs=None, select="macro-f1")
    run = quick(uneven, tmp_path / "epochs", policy="head", epochs=2, select="macro-f1")
    assert run.epochs > 0
