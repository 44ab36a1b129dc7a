"""Memory that runs out: the batch is taken in parts, and the step is that of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers import Listener
from tests.training.test_loop import X, a_task
from tl_kit.errors import ResourceError
from tl_kit.training.loop import fit
from tl_kit.training.task import Loss, Microbatch, Task
from tl_kit.training.weighted_loss import total_weight, weighted_cross_entropy


class Small(nn.Module):
    """A network on a machine that has memory for ``most`` images; ``seen`` are the sizes of its forward passes."""

    def __init__(self, most: int, *, error: Callable[[], Exception], backward: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2))
        self.most, self.error, self.backward = most, error, backward
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if len(x) <= self.most:
            return self.layers(x)
        if not self.backward:
            raise self.error()
        result: Tensor = self.layers(x)
        result.register_hook(self._fail)
        return result

    def _fail(self, gradient: Tensor) -> None:
        raise self.error()


def gpu() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def cpu() -> Exception:
    return RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")


WEIGHTS = torch.tensor([0.4, 2.5])
OBJECTIVES: dict[str, dict[str, Any]] = {
    "plain": {},
    "smoothed": {"objective": lambda a, b: functional.cross_entropy(a, b, label_smoothing=0.2)},
    "weighted": {
        "objective": lambda a, b: weighted_cross_entropy(a, b, weights=WEIGHTS, label_smoothing=0.1),
        "weigh": lambda labels: total_weight(labels, weights=WEIGHTS),
    },
}


def task_of(model: nn.Module, *, batch_size: int = 13, **changes: Any) -> Task:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    return replace(a_task(batch_size=batch_size), model=model, optimizer=optimizer, clip_norm=0.5, **changes)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("penalised", [False, True])
@pytest.mark.parametrize(("most", "error", "backward"), [(7, gpu, False), (3, gpu, True), (1, cpu, False)])
def test_the_weights_are_those_of_the_undivided_run(
    objective: str, mixed: bool, penalised: bool, most: int, error: Callable[[], Exception], backward: bool
) -> None:
    """30 images in batches of 13: parts are of uneven sizes, and Adam, clipping and penalty see one whole step."""
    found, losses, sizes = [], [], []
    mixtures = torch.softmax(torch.randn(30, 2, generator=torch.Generator().manual_seed(3)), dim=1)
    for limit in (10**9, most):
        model = Small(limit, error=error, backward=backward)
        changes: dict[str, Any] = {}
        loss = Loss(**OBJECTIVES[objective])
        if mixed:
            changes["batch"] = lambda i, epoch: (X[torch.from_numpy(i)], mixtures[torch.from_numpy(i)])
        if penalised:
            loss = replace(loss, penalty=lambda model=model: 0.1 * sum(p.square().sum() for p in model.parameters()))
        result = fit(task_of(model, loss=loss, **changes), Accelerator(cpu=True))
        found.append(nn.utils.parameters_to_vector(model.parameters()).detach())
        losses.append([row["loss"] for row in result.history])
        sizes.append(model.seen)
    assert max(sizes[0]) > most
    assert max(sizes[1][10:]) <= most, "what ran out of memory once is not tried again"
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-6)
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)


def test_it_is_said_once_and_what_fits_is_not_divided() -> None:
    notes, model = Listener(), Small(7, error=gpu)
    fit(task_of(model), Accelerator(cpu=True), reporter=notes)
    assert notes.messages == [
        "memory ran out with 10 images in one pass: batches are trained on in parts of 5, "
        "and one step is still taken for all of a batch"
    ]
    assert model.seen[0] == 10
    assert set(model.seen[1:]) == {5}
    notes, model = Listener(), Small(10**9, error=gpu)
    fit(task_of(model), Accelerator(cpu=True), reporter=notes)
    assert (notes.messages, set(model.seen)) == ([], {10})


@pytest.mark.parametrize("images", range(1, 40))
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 16, None])
def test_parts_hold_every_image_and_none_is_alone_where_two_fit(images: int, rows: int | None) -> None:
    from tl_kit.training.microbatches import _parts

    sizes = [len(part) for part in torch.arange(images).tensor_split(_parts(images, rows))]
    assert sum(sizes) == images
    assert max(sizes) - min(sizes) <= 1
    if rows is None or rows >= images:
        assert sizes == [images]
    elif rows > 1:
        assert min(sizes) > 1
        assert max(sizes) <= max(rows, 3)


def test_where_nothing_is_left_to_divide_it_ends_in_a_line() -> None:
    with pytest.raises(ResourceError, match=r"memory ran out with 1 images.*--batch-size"):
        fit(task_of(Small(0, error=gpu)), Accelerator(cpu=True))


def test_batchnorm_is_never_left_with_a_single_image() -> None:
    model = nn.Sequential(Small(1, error=gpu), nn.BatchNorm1d(2)).train()
    with pytest.raises(ResourceError, match="memory ran out with 2 images"):
        fit(task_of(model), Accelerator(cpu=True))
    model = nn.Sequential(Small(3, error=gpu), nn.BatchNorm1d(2)).train()
    fit(task_of(model), Accelerator(cpu=True))
    assert min(model[0].seen) > 1


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        fit(task_of(Small(3, error=lambda: RuntimeError("shapes do not fit"))), Accelerator(cpu=True))


def test_phases_share_what_was_learned_about_memory() -> None:
    task = task_of(Small(7, error=gpu), microbatch=Microbatch())
    later = replace(task, model=task.model)
    fit(task, Accelerator(cpu=True))
    assert later.microbatch.rows == 5


def test_what_can_be_done_without_is_given_up_before_batches_are_divided() -> None:
    model = Small(7, error=gpu)
    given: list[int] = []

    def give_up() -> bool:
        given.append(len(model.seen))
        model.most = 13
        return len(given) == 1

    listener = Listener()
    fit(task_of(model, give_up=give_up), Accelerator(cpu=True), reporter=listener)
    assert len(given) == 1
    assert min(model.seen) >= 10, "no batch was divided"
    assert listener.messages == ["memory is short on the device: the images are no longer kept there"]
