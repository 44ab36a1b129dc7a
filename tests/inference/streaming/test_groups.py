"""Streams of images: the bits of one call for all, whatever pauses, in the order given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tl_kit
from tests.helpers import Listener
from tests.inference.streaming.conftest import SMALL, Story, flat
from tl_kit import Prediction, Predictor, StreamConfig
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import CropConfig, MembersConfig
from tl_kit.errors import InputError
from tl_kit.inference.predictor import load_members
from tl_kit.inference.streaming.groups import groups, predict_groups
from tl_kit.inference.streaming.named import Named
from tl_kit.storage.checkpoint import load_checkpoint


def test_a_stream_has_the_bits_of_one_call(story: Story, predictor: Predictor) -> None:
    for count in (1, 3, 4, 5, 9, 33, 36):
        assert list(predictor.stream(iter(story.files[:count]))) == predictor.predict(story.files[:count]), count
    assert list(tl_kit.predict_stream(story.checkpoint, story.files, runtime=SMALL)) == story.expected
    assert tl_kit.predict(story.checkpoint, story.files, runtime=SMALL) == story.expected


def test_members_and_crops_have_the_bits_of_one_call(story: Story) -> None:
    members = [load_checkpoint(folder) for folder in (story.checkpoint, story.other)]
    rule = FittedRule("logit-mean", {}, 0.7)
    for crops in (CropConfig(), CropConfig(crops=5)):
        both = load_members(
            story.checkpoint,
            members,
            classes=members[0].classes,
            rule=rule,
            crops=crops,
            runtime=replace(SMALL, batch_size=7),
        )
        both = replace(both, sharing=False, memory=MembersConfig(pixel_bytes=3 * 32 * 32 * 15))
        for count in (1, 8, 15, 36):
            assert list(both.stream(story.files[:count])) == both.predict(story.files[:count])


@pytest.mark.parametrize("pauses", [(1,), (2, 3, 4, 5), (4, 8), (7, 30, 33), range(1, 34)])
def test_pauses_change_no_bit(pauses: tuple[int, ...], story: Story, predictor: Predictor) -> None:
    def items(at: tuple[int, ...]) -> Iterator[Named | None]:
        for number, file in enumerate(story.files):
            if number in at:
                yield None
            yield Named(str(file), file)

    def found(at: tuple[int, ...]) -> list[list[Prediction]]:
        return [g.predictions for g in predict_groups(predictor, items(at), timed=True, reporter=Listener())]

    together, apart = found(()), found(pauses)
    assert flat(apart) == flat(together)
    assert flat(together) == story.expected, "36 images fill nine batches of 4"
    ends = {sum(map(len, apart[: n + 1])) for n in range(len(apart))}
    assert ends >= set(pauses), "all that came before a pause is predicted"


def test_a_stream_takes_up_again_within_a_batch(story: Story, predictor: Predictor) -> None:
    items = [Named(str(file), file) for file in story.files]
    for cut in (1, 4, 6, 35):
        first = list(predict_groups(predictor, items[:cut], timed=True, reporter=Listener()))
        rest = predict_groups(
            predictor, items[cut:], begun=True, place=first[-1].place, timed=True, reporter=Listener()
        )
        assert [p for g in (*first, *rest) for p in g.predictions] == story.expected


def test_groups_are_whole_batches_unless_memory_is_full() -> None:
    def sizes(count: int, *, size: int = 0, **options: Any) -> list[tuple[int, int, bool]]:
        items = [Named(str(n), bytes(size)) for n in range(count)]
        config = StreamConfig(held_bytes=1000)
        return [(len(g.inputs), g.before, g.filled) for g in groups(items, per_batch=4, config=config, **options)]

    assert sizes(10, at_once=4) == [(4, 0, False), (4, 0, False), (2, 0, False)]
    assert sizes(10, at_once=8) == [(8, 0, False), (2, 0, False)]
    assert sizes(10, at_once=4, timed=True) == [(4, 0, True), (4, 0, True), (2, 0, True)]
    assert sizes(7, at_once=8, size=350) == [(3, 0, True), (3, 3, True), (1, 2, True)]
    assert sizes(6, at_once=4, place=3) == [(5, 3, False), (1, 0, False)]


def test_nothing_is_taken_before_it_is_needed(story: Story, predictor: Predictor) -> None:
    taken = 0

    def files() -> Iterator[Path]:
        nonlocal taken
        for file in story.files:
            taken += 1
            yield file

    stream = predictor.stream(files())
    next(stream)
    assert taken == 4
    stream = predictor.stream(iter([story.files[0]] * 4 + [None]))  # type: ignore[list-item]
    assert [next(stream).error for _ in range(4)] == [None] * 4
    with pytest.raises(InputError, match="image 4 is None"):
        next(stream)


def test_deep_images_are_told_of_once(story: Story, predictor: Predictor, tmp_path: Path) -> None:
    deep = tmp_path / "deep.png"
    Image.fromarray(np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 60).save(deep)
    one, all_of_them = Listener(), Listener()
    assert list(predictor.stream([deep] * 9, reporter=one)) == predictor.predict([deep] * 9, reporter=all_of_them)
    assert one.messages == all_of_them.messages
    assert "9 images have more than 8 bits" in one.messages[0]
