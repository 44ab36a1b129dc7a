"""Inference where memory runs out, or where bf16 is too narrow: the same numbers, with a line that says so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.helpers import told
from tl_kit.errors import ResourceError
from tl_kit.machine.forward import forward_rows


class Network(nn.Module):
    """``x @ w`` in the precision around it, on a machine with memory for ``most`` images."""

    def __init__(self, most: int = 10**9, *, error: type[Exception] = torch.OutOfMemoryError) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3, bias=False)
        self.most, self.error = most, error
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if len(x) > self.most:
            raise self.error("CUDA out of memory")
        return self.layer(x)


IMAGES = torch.randn(21, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("most", [2, 3, 5, 20])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_batches_are_halved_until_they_fit_and_stay_so(most: int, error: type[Exception]) -> None:
    network = Network(most, error=error)
    with torch.inference_mode():
        expected = network.layer(IMAGES)
        found = forward_rows(network, IMAGES)
        torch.testing.assert_close(found, expected)
        assert told()
        network.seen.clear()
        torch.testing.assert_close(forward_rows(network, IMAGES), expected)
    assert max(network.seen) <= most
    assert min(network.seen) > 1
    assert told() == []


def test_where_two_images_are_too_many_it_ends_in_a_line() -> None:
    with pytest.raises(ResourceError, match="memory ran out with"):
        forward_rows(Network(1), IMAGES)
    told()


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        forward_rows(nn.Linear(5, 2), IMAGES)


class Narrow(nn.Module):
    """In bf16, rows that begin with a number above 2 overflow, as a sum of squares may."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.rows: list[tuple[int, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        low = torch.is_autocast_enabled("cpu")
        self.rows.append((len(x), low))
        output: Tensor = self.layer(x)
        return torch.where(x[:, :1] > 2, torch.inf, output) if low else output


@pytest.mark.parametrize("broken", [(), (3,), (0, 7, 20), tuple(range(21))])
def test_rows_that_overflow_in_bf16_and_no_others_are_computed_in_fp32(broken: tuple[int, ...]) -> None:
    images = IMAGES.clamp(-1, 1)
    images[list(broken), 0] = 3.0
    network = Narrow()
    with torch.inference_mode():
        full = network.layer(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = network.layer(images)
            network.rows.clear()
            found = forward_rows(network, images)
            assert torch.is_autocast_enabled("cpu"), "the precision of the rest stays"
    rest = [row for row in range(21) if row not in broken]
    assert torch.equal(found[rest], low[rest])
    torch.testing.assert_close(found[list(broken)], full[list(broken)].to(found.dtype))
    assert bool(found.isfinite().all())
    assert network.rows[0] == (21, True)
    assert (len(network.rows) > 1) == bool(broken)
    assert told() == (["in bf16, outputs of some images are not finite: these are computed in fp32"] if broken else [])


def test_alone_or_among_others_an_image_gets_the_same_treatment() -> None:
    images = IMAGES.clamp(-1, 1)
    images[4, 0] = 3.0
    network = Narrow()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        together = forward_rows(network, images)
        alone = torch.cat([forward_rows(network, image[None]) for image in images])
    torch.testing.assert_close(alone, together)
    told()


def test_without_an_autocast_nothing_is_computed_twice() -> None:
    class Broken(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Broken.calls += 1
            return x * torch.nan

    assert bool(forward_rows(Broken(), IMAGES).isnan().all())
    assert Broken.calls == 1


def test_a_caller_that_looks_on_sees_the_batch_whole() -> None:
    calls: list[int] = []

    def watch(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x * torch.inf

    with torch.autocast("cpu", dtype=torch.bfloat16):
        forward_rows(watch, IMAGES, whole=True)
    assert calls == [21]


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 21])
def test_every_pass_has_the_rows_that_are_asked_for(count: int) -> None:
    network = Network()
    with torch.inference_mode():
        found = forward_rows(network, IMAGES[:count], rows=8)
        whole = forward_rows(network, IMAGES[:8], rows=8)
    assert set(network.seen) == {8}
    assert len(found) == count
    shared = min(count, 8)
    assert torch.equal(found[:shared], whole[:shared]), "however many were asked for"


def test_with_rows_and_little_memory_all_passes_are_of_one_smaller_shape() -> None:
    network = Network(3)
    with torch.inference_mode():
        torch.testing.assert_close(forward_rows(network, IMAGES, rows=8), network.layer(IMAGES))
        told()
        network.seen.clear()
        forward_rows(network, IMAGES[:5], rows=8)
    assert set(network.seen) == {2}
