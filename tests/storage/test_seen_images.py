"""What a record says that a model has seen, and for what; and what a score on such images is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tl_kit.data.manifest import Sample
from tl_kit.score_kinds import notes_on
from tl_kit.storage.checkpoint_schema import data_problems
from tl_kit.storage.seen_images import NO_USES, Uses, kind_of, uses_in, uses_together


def image(letter: str, *, name: str = "x", label: int = 0, split: str = "test") -> Sample:
    return Sample(Path(name), label, split, letter * 64, None)


def prefixes(letters: str) -> list[str]:
    return [letter * 16 for letter in letters]


def record(train: str = "ab", val: str = "c", **more: Any) -> dict[str, Any]:
    return {"train": prefixes(train), "val": prefixes(val), **more}


def test_an_image_is_told_by_its_content_whatever_its_name_label_or_split() -> None:
    uses = uses_in(record(selected=["epoch"]), "run")
    for name, label, split in (("a.png", 0, "train"), ("copy/b.jpg", 1, "test"), ("x", 7, "val")):
        assert uses.of(image("a", name=name, label=label, split=split)) == "train"
        assert uses.of(image("c", name=name, label=label, split=split)) == "selected on"
        assert uses.of(image("z", name=name, label=label, split=split)) is None


@pytest.mark.parametrize(
    ("more", "use", "chose"),
    [
        ({"selected": ["epoch"]}, "selected on", ("epoch",)),
        ({"selected": []}, None, ()),
        ({}, "selected on", ()),  # written before it was noted
    ],
)
def test_validation_images_are_selected_on_where_they_chose_something(
    more: dict[str, Any], use: str | None, chose: tuple[str, ...]
) -> None:
    uses = uses_in(record(**more), "run")
    assert (uses.of(image("c")), uses.chose) == (use, chose)
    assert set(prefixes("abc")) == uses.known, "it has seen them in any case"


def test_a_student_has_seen_what_its_teacher_has() -> None:
    uses = uses_in(record(selected=[], teacher=record("d", "ce", selected=["rule"])), "run")
    assert [uses.of(image(letter)) for letter in "abcdez"] == [
        *["train"] * 2,
        "selected on",
        "train",
        "selected on",
        None,
    ]
    assert uses.chose == ("rule",)


def test_several_have_seen_what_any_of_them_has_and_trained_on_counts_first() -> None:
    uses = uses_together(
        [uses_in(record("a", "b", selected=["C"]), "x"), uses_in(record("b", "a", selected=["epoch"]), "y")]
    )
    assert [uses.of(image(letter)) for letter in "ab"] == ["train", "train"]
    assert uses.chose == ("C", "epoch")
    assert uses_together([]) == NO_USES


@pytest.mark.parametrize(
    ("letters", "kind"), [("zz", "test"), ("ab", "trained on"), ("cc", "selected on"), ("az", "mixed"), ("ac", "mixed")]
)
def test_kinds(letters: str, kind: str) -> None:
    uses = uses_in(record(selected=["epoch"]), "run")
    assert kind_of([image(letter) for letter in letters], uses) == kind


def test_a_record_without_training_images_says_nothing_of_others() -> None:
    uses = uses_in({"val": prefixes("c")}, "run")
    assert uses.unknown == ("run",)
    assert kind_of([image("z")], uses) == "unknown"
    assert kind_of([image("c")], uses) == "selected on"
    assert uses_in(record(unknown=True), "run").unknown == ("run",)


@pytest.mark.parametrize(
    "uses",
    [
        NO_USES,
        Uses(trained=frozenset(prefixes("a")), selected=frozenset(prefixes("bc")), chose=("C", "rule")),
        Uses(selected=frozenset(prefixes("b"))),
        Uses(trained=frozenset(prefixes("a")), unknown=("run",)),
    ],
)
def test_what_is_written_is_what_is_read(uses: Uses) -> None:
    content = uses.to_dict()
    assert list(data_problems(content)) == []
    assert uses_in(content, "run") == uses


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"train": "abc"}, "data.train is not a list of digests"),
        ({"val": [1]}, "data.val is not a list of digests"),
        ({"selected": "epoch"}, "data.selected is not a list of names"),
        ({"selected": [None]}, "data.selected is not a list of names"),
        ({"unknown": "yes"}, "data.unknown is neither true nor false"),
        ({"teacher": []}, "data.teacher is not a JSON object"),
        ({"teacher": None}, "data.teacher is not a JSON object"),
        ({"teacher": {"train": {}}}, "data.teacher.train is not a list of digests"),
    ],
)
def test_a_damaged_record_is_named(content: dict[str, Any], says: str) -> None:
    assert list(data_problems(content)) == [says]


def test_notes_say_what_the_mark_means_and_where_an_estimate_comes_from() -> None:
    assert notes_on([{"val": "test", "test": "test"}], ()) == []
    assert notes_on([{"val": "out of fold"}], ()) == []
    (one,) = notes_on([{"val": "selected on", "test": "test"}], ("epoch", "rule", "temperature"))
    assert one.startswith("* val (selected on): these images chose the best epoch, the rule and the temperature, ")
    one, hint = notes_on([{"val": "selected on"}], ())
    assert "chose something of the model" in one
    assert "--folds 5" in hint
    lines = notes_on([{"val": "selected on", "test": "trained on"}, {"val": "test", "test": "unknown"}], ("C",))
    assert [line.partition(":")[0] for line in lines] == ["* val (selected on)", "* test (mixed)"]
