"""The picture shows the receipt's own numbers."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist

import pytest

from tests.combining.test_receipt import receipt_of
from tests.combining.toy import noisy
from tl_kit.metrics import wilson
from tl_kit.reports.receipt_picture import draw_receipt, receipt_figure


@pytest.mark.parametrize(("hits", "images"), [(0, 9), (9, 9), (5, 9), (180, 372), (371, 372)])
def test_intervals_are_wilsons(hits: int, images: int) -> None:
    """Its ends are the shares from which the observed one is just as far as 97.5 % of the normal distribution."""
    share = hits / images
    for end in wilson(share, images):
        far = NormalDist().inv_cdf(0.975) * math.sqrt(end * (1 - end) / images)
        assert abs(share - end) == pytest.approx(far, abs=1e-12)


@pytest.mark.parametrize("members", [2, 12])
@pytest.mark.parametrize("test", [True, False])
def test_it_shows_the_accuracies_and_the_disagreement(members: int, test: bool) -> None:
    split = "test" if test else "val"
    names = [f"ckpts/{number}/model-with-a-name-that-goes-on-and-on" for number in range(members)]
    receipt = receipt_of(
        names, noisy(0, 60, members=members), noisy(1, 40, members=members) if test else None, samples=20
    )
    left, right, _ = receipt_figure(receipt).axes
    shown = [line.get_xdata()[0] for line in left.lines if line.get_marker() == "o"]
    together = [*receipt["members"], receipt["ensemble"]]
    assert shown == pytest.approx([100 * scores[split]["accuracy"] for scores in together])
    shares = receipt["disagreement"][split]
    assert shares is not None
    assert right.images[0].get_array().tolist() == [[pytest.approx(100 * share) for share in row] for row in shares]
    assert split in left.get_title()


def test_no_tick_is_above_all_images() -> None:
    """Marks near 100 % have space beside them, and the axis ends where they do."""
    left = receipt_figure(receipt_of("ab", noisy(0, 40, members=2, signal=9), None, samples=20)).axes[0]
    assert left.get_xlim()[1] > 100
    assert len(left.get_xticks()) > 1
    assert max(left.get_xticks()) <= 100


def test_the_file_is_a_picture(tmp_path: Path) -> None:
    receipt = receipt_of("ab", noisy(0, 40, members=2), None, samples=20)
    draw_receipt(receipt, tmp_path / "receipt.png")
    assert (tmp_path / "receipt.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["receipt.png"]
