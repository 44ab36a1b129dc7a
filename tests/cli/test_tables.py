"""The layout of tables: whatever the width, figures stay whole, and names can be told apart."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tl_kit.cli.cells import fold, shorten, width_of, wrap
from tl_kit.cli.tables import layout
from tl_kit.display import visible

FIGURES = st.sampled_from(["", "0.412", "87.1 %", "100.0 %", "1,234", "-0.013", "+0.003 ± 0.002", "1.2e-04", "12.0 s"])
# Wide characters, emoji of several characters, accents of their own, escapes made visible, separators of paths.
ALPHABET = st.sampled_from(
    [*"aZ09._-/ ", "é", "e\u0301", "猫", "한", "👩\u200d🔬", "👍🏽", "❤\ufe0f", "\\x1b", "ש", "ﬁ"]
)
NAMES = st.lists(ALPHABET, max_size=60).map("".join)
WORDS = ["image", "accuracy", "nll", "out of fold accuracy", "≠ 1", "most mistaken for", "", "probability 2"]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]], str]:
    align = draw(st.sampled_from("lnw")) + draw(st.text("lnrw", max_size=9))
    kinds = {"l": NAMES, "n": NAMES, "w": NAMES, "r": FIGURES}
    header = [draw(st.sampled_from(WORDS)) for _ in align]
    rows = draw(st.lists(st.tuples(*(kinds[letter] for letter in align)).map(list), max_size=6))
    return header, rows, align


@given(tables(), st.integers(40, 160))
def test_a_table_of_any_content_in_any_width(table: tuple[list[str], list[list[str]], str], width: int) -> None:
    header, rows, align = table
    lines = layout(header, rows, align, width)
    assert all(width_of(line) <= width for line in lines)
    shown = "\n".join(lines)
    for column, letter in enumerate(align):
        for figure in {row[column] for row in rows if letter == "r"}:
            wanted = sum(row[column] == figure for row in rows)
            assert not figure or len(re.findall(rf"(?:^|(?<= )){re.escape(figure)}(?= |$)", shown, re.M)) >= wanted
    assert not any(line.endswith(" ") for line in lines)


@given(tables())
def test_off_a_terminal_a_row_is_a_line_with_all_that_is_in_it(table: tuple[list[str], list[list[str]], str]) -> None:
    header, rows, align = table
    lines = layout(header, rows, align, None)
    assert len(lines) == 2 + len(rows)
    for row, line in zip(rows, lines[2:], strict=True):
        assert all(cell.rstrip(" ") in line for cell in row)


@given(st.lists(NAMES, max_size=8), st.integers(3, 40))
def test_shortened_names_fit_and_differ(names: list[str], width: int) -> None:
    short = shorten(names, width)
    if short is None:
        assert any(width_of(name) > width for name in names)
        return
    assert len(set(short)) == len(set(names))
    for name, shown in zip(names, short, strict=True):
        assert width_of(shown) <= width
        if width_of(name) <= width:
            assert shown == name
            continue
        start, end = shown.split("…")
        assert name.startswith(start)
        assert name.endswith(end)
        assert start + end or len(fold(name, 1)) == 1, (
            "one sign of joined emoji, which older versions of rich take as wide"
        )


@given(NAMES, st.integers(2, 60))
def test_lines_lose_nothing(text: str, width: int) -> None:
    assert "".join(fold(text, width)) == text
    lines = wrap(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    # An older rich takes an emoji of several parts for wider than it is: such a one is a line by itself.
    assert all(width_of(line) <= width or len(fold(line, 1)) == 1 for line in lines)
    assert all(width_of(line) <= width or len(fold(line, 1)) == 1 for line in fold(text, width))
    assert all(word in " ".join(wrap(text, width, long_words=False)) for word in text.split(" "))


@pytest.mark.parametrize(
    ("names", "width", "shown"),
    [
        (["ckpts/long/resnet18-1", "ckpts/resnet18-2"], 16, ["…/resnet18-1", "ckpts/resnet18-2"]),
        (["photos/cats/tabby/1.jpg"], 16, ["…/tabby/1.jpg"]),
        (["a/model-of-mine", "b/model-of-mine"], 14, ["a/mo…l-of-mine", "b/mo…l-of-mine"]),
        (["class-0001-of-the-set", "class-0002-of-the-set"], 16, ["class-0001…e-set", "class-0002…e-set"]),
        (["one-" * 9 + "x" + "-two" * 9, "one-" * 9 + "y" + "-two" * 9], 16, None),
        (["tf_efficientnet_lite0.in1k"], 16, ["tf_ef…lite0.in1k"]),
        (["猫" * 10], 9, ["猫…猫猫猫"]),
        (["e\u0301" * 10], 5, ["e\u0301…e\u0301e\u0301e\u0301"]),
        (["/" + "x" * 20 + "/"], 10, ["/xx…xxxxx/"]),
    ],
)
def test_shorten(names: list[str], width: int, shown: list[str] | None) -> None:
    assert shorten(names, width) == shown


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("accuracy 93.1 % of all", 14, ["accuracy", "93.1 % of all"]),
        ("gain 0.412 ± 0.003 each", 14, ["gain", "0.412 ± 0.003", "each"]),
        ("took 12.0 s in all", 9, ["took", "12.0 s in", "all"]),
        ("a  b", 10, ["a  b"]),
        ("loss 0.412  val nll 1.125  lr 3.0e-02", 28, ["loss 0.412  val nll 1.125", "lr 3.0e-02"]),
        ("val nll 1.125  lr 3.0e-02", 14, ["val nll 1.125", "lr 3.0e-02"]),
        ("  indented and long", 12, ["  indented", "and long"]),
        ("abcdefgh ij", 3, ["abc", "def", "gh", "ij"]),
    ],
)
def test_wrap(text: str, width: int, lines: list[str]) -> None:
    assert wrap(text, width) == lines


MEMBERS = [
    [f"ckpts/tf_efficientnet_lite{n}-1", "87.1 %", "0.412", "3.1 %", "86.0 %", "0.433", "2.9 %"] for n in range(6)
]
SCORES = ["", *(f"{split} {name}" for split in ("val", "test") for name in ("accuracy", "nll", "ece"))]


def test_six_members_in_80_columns_keep_their_names() -> None:
    lines = layout(SCORES, MEMBERS, "lrrrrrr", 80)
    assert [line.split("  ")[0] for line in lines[3:]] == [row[0] for row in MEMBERS]
    lines = layout(SCORES, MEMBERS, "lrrrrrr", 66)
    assert lines[:4] == [
        "                         val    val    val      test   test   test",
        "                    accuracy    nll    ece  accuracy    nll    ece",
        "──────────────────────────────────────────────────────────────────",
        "ckpts…tnet_lite0-1    87.1 %  0.412  3.1 %    86.0 %  0.433  2.9 %",
    ]
    assert all(f"lite{n}-1" in line for n, line in enumerate(lines[3:]))


def test_below_that_there_is_a_record_for_each() -> None:
    assert layout(SCORES, MEMBERS[:2], "lrrrrrr", 40)[:8] == [
        "ckpts/tf_efficientnet_lite0-1",
        "  val accuracy   87.1 %",
        "  val nll        0.412",
        "  val ece        3.1 %",
        "  test accuracy  86.0 %",
        "  test nll       0.433",
        "  test ece       2.9 %",
        "",
    ]


def test_a_record_of_sentences_and_long_names() -> None:
    row = ["warning", "train/" + "cat" * 12, "12 images are near copies of others in this split of the data", "", "3"]
    header = ["severity", "where", "what is wrong", "empty", "number"]
    assert layout(header, [row], "llwlr", 44) == [
        "severity: warning",
        "  where          train/catcatcatcatcatcatcat",
        "                 catcatcatcatcat",
        "  what is wrong  12 images are near copies",
        "                 of others in this split of",
        "                 the data",
        "  number         3",
    ]
    assert layout(header, [row], "llwlr", 40)[1:5] == [
        "  where",
        "    train/catcatcatcatcatcatcatcatcatcat",
        "    catcat",
        "  what is wrong",
    ]


def test_sentences_are_wrapped_beside_names() -> None:
    rows = [["policy", "head, 2,562 of 300,611 parameters", "as you said, and because of the images"]]
    assert layout(["", "", "why"], rows, "lww", 62) == [
        "                                    why",
        "──────────────────────────────────────────────────────────────",
        "policy  head, 2,562 of 300,611      as you said, and because",
        "        parameters                  of the images",
    ]


@pytest.mark.parametrize("width", [0, 1, 10, 20, 39])
def test_the_narrowest_terminals_lose_nothing(width: int) -> None:
    shown = "".join(line.strip() for line in layout(SCORES, MEMBERS, "lrrrrrr", width))
    for row in MEMBERS:
        assert all(cell in shown for cell in row)


def test_what_a_terminal_would_obey_is_text_before_it_is_measured() -> None:
    name = visible("\x1b[31mred\u202e\n" * 3)
    lines = layout(["class", "f1"], [[name, "1.0 %"]], "lr", 40)
    assert lines[2].endswith("1.0 %")
    assert width_of(lines[2]) <= 40


def test_marks_of_ascii() -> None:
    lines = layout(["name", "f1"], [["x" * 60, "1.0 %"]], "lr", 40, plain=True)
    assert "".join(lines).isascii()
    assert "~" in lines[2]
