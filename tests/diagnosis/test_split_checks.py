"""What stops a run before it starts, what lifts it, and groups by file name."""

from __future__ import annotations

import random
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.images import write_classes
from tl_kit.config import DataConfig
from tl_kit.data.findings import BLOCKING
from tl_kit.data.grouping import group_by_name
from tl_kit.data.manifest import Manifest, Sample
from tl_kit.data.scan import scan
from tl_kit.diagnosis.split_checks import check_discipline, known_faults
from tl_kit.errors import ConfigError, DataError


def clean(root: Path) -> Path:
    for seed, (split, count) in enumerate({"train": 4, "val": 2, "test": 2}.items()):
        write_classes(root / split, {"a": count, "b": count}, seed=seed)
    return root


def plant(root: Path, fault: str) -> Path:
    """A CSV over :func:`clean` with one fault in it; folders, where the fault is in their layout."""
    if fault == "split-or-class":
        write_classes(root, {"a": 8, "b": 8})
        return write_classes(root / "test", {"a": 2, "b": 2}, seed=1).parent
    if fault == "class-above-split":
        for seed, name in enumerate("ab"):
            write_classes(root / name, {"train": 8, "test": 4}, seed=seed)
        return root
    clean(root)
    shutil.copy(root / "train/a/0.png", root / "copy.png")
    rows = [
        [*file.relative_to(root).parts[1::-1], file.relative_to(root), ""] for file in sorted(root.rglob("*/*/*.png"))
    ]
    if fault == "split-leak":
        rows.append(["a", "test", "copy.png", ""])
    if fault == "label-conflict":
        rows.append(["b", "train", "copy.png", ""])
    if fault == "class-missing":
        rows = [row for row in rows if row[:2] != ["b", "val"]]
    if fault == "group-leak":
        rows = [[*row[:3], "anna" if Path(row[2]).stem == "1" and row[0] == "a" else ""] for row in rows]
    file = root / "labels.csv"
    if fault == "unused-split":
        for row in rows:
            flat = "-".join(Path(row[2]).parts)
            row[2] = shutil.copy(root / row[2], root / flat).name
    split = "usage" if fault == "unused-split" else "split"
    file.write_text(f"label,{split},path,group\n" + "\n".join(",".join(map(str, row)) for row in rows))
    return file


def test_clean_data_pass(tmp_path):
    assert known_faults(scan(plant(tmp_path, "nothing"))) == []
    assert check_discipline(scan(clean(tmp_path / "folders"))) == []


@pytest.mark.parametrize("fault", BLOCKING)
def test_each_fault_stops_until_it_is_allowed_by_its_name(tmp_path, fault):
    manifest = scan(plant(tmp_path, fault))
    with pytest.raises(DataError) as caught:
        check_discipline(manifest, allow=[name for name in BLOCKING if name != fault])
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{manifest.root}: {fault}: ")
    assert text.endswith(f"or add --allow {fault}")
    (line,) = check_discipline(manifest, allow=[fault])
    assert line.startswith(f"allowed: {fault}: ")


def test_all_that_stops_is_in_one_line(tmp_path):
    root = clean(tmp_path)
    shutil.copy(root / "train/a/0.png", root / "test/b/leak.png")
    with pytest.raises(DataError) as caught:
        check_discipline(scan(root))
    assert "label-conflict: 2 files" in str(caught.value)
    assert "split-leak: 2 files" in str(caught.value)
    assert str(caught.value).endswith("--allow label-conflict --allow split-leak")
    with pytest.raises(DataError, match=r"--allow split-leak$"):
        check_discipline(scan(root), allow=["label-conflict"])


def test_splits_made_here_do_not_leak_and_a_class_of_one_image_stops_nothing(tmp_path):
    write_classes(tmp_path, {"a": 8, "b": 8, "one": 1})
    shutil.copy(tmp_path / "a/0.png", tmp_path / "a/copy.png")
    found = {(item.severity, item.code) for item in known_faults(scan(tmp_path))}
    assert found == {("warning", "class-missing"), ("info", "duplicate")}
    assert sorted(check_discipline(scan(tmp_path))) == [
        f"{split} has no image of 'one': too few images or groups to divide; scores there say nothing of it"
        for split in ("test", "val")
    ]


@pytest.mark.parametrize("fault", BLOCKING)
def test_where_splits_are_pooled_only_labels_and_layout_matter(tmp_path, fault):
    manifest = scan(plant(tmp_path, fault))
    if fault in ("label-conflict", "class-above-split", "split-or-class", "unused-split"):
        with pytest.raises(DataError, match=fault):
            check_discipline(manifest, pooled=True)
    else:
        assert check_discipline(manifest, pooled=True) == []


@pytest.mark.parametrize("seed", range(20))
def test_leaks_are_exactly_the_digests_and_groups_of_two_splits(seed):
    """Against counting pairs."""
    rng = random.Random(seed)
    samples = tuple(
        Sample(
            Path(f"{number}"),
            rng.randrange(3),
            rng.choice(("train", "val", "test")),
            str(rng.randrange(60)),
            rng.choice((None, "x", "y", "z", *map(str, range(30)))),
        )
        for number in range(40)
    )
    manifest = Manifest(Path("root"), ("a", "b", "c"), samples)
    found = {item.code: set(item.paths) for item in known_faults(manifest)}

    def of_pairs(same: str, differ: str) -> set[Path]:
        return {
            one.path
            for one in samples
            for other in samples
            if getattr(one, same) == getattr(other, same) is not None and getattr(one, differ) != getattr(other, differ)
        }

    for code, same, differ in (
        ("split-leak", "digest", "split"),
        ("label-conflict", "digest", "label"),
        ("group-leak", "group", "split"),
    ):
        assert found.get(code, set()) == of_pairs(same, differ)
    shuffled = replace(manifest, samples=tuple(rng.sample(samples, len(samples))))
    assert {item.code: set(item.paths) for item in known_faults(shuffled)} == found


def named(root: Path) -> Path:
    """Six patients of four photos each."""
    write_classes(root, {"a": 12, "b": 12})
    for label in "ab":
        for number in range(12):
            (root / label / f"{number}.png").rename(root / label / f"{label}{number // 4}_{number}.png")
    return root


@pytest.mark.parametrize("pattern", ["^[^_]+", "(.*)_"])
def test_images_with_one_match_stay_together(tmp_path, pattern):
    manifest = scan(named(tmp_path), DataConfig(group_pattern=pattern))
    assert {sample.group for sample in manifest.samples} == {"a0", "a1", "a2", "b0", "b1", "b2"}
    splits = {group: {s.split for s in manifest.samples if s.group == group} for group in ("a0", "a1", "a2")}
    assert sorted(map(len, splits.values())) == [1, 1, 1]
    assert manifest.notes[0] == "6 groups by file name; 0 of 24 images are in none"


def test_without_a_match_there_is_no_group(tmp_path):
    manifest = scan(named(tmp_path), DataConfig(group_pattern="^(a)"))
    assert {(sample.group, sample.path.name[0]) for sample in manifest.samples} == {("a", "a"), (None, "b")}
    assert manifest.notes[0] == "1 groups by file name; 12 of 24 images are in none"


def test_a_bracket_that_took_no_part_is_no_match(tmp_path):
    with pytest.raises(ConfigError, match=re.escape("--group-pattern b|(x): matches no file name")):
        scan(named(tmp_path), DataConfig(group_pattern="b|(x)"))


def test_what_a_csv_says_counts_more(tmp_path):
    root = named(tmp_path / "images")
    rows = [
        "path,label,group",
        *(f"images/{p.relative_to(root)},{p.parent.name}," for p in sorted(root.rglob("*.png"))),
    ]
    rows[1] += "mine"
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    manifest = scan(tmp_path / "labels.csv", DataConfig(group_pattern="^[^_]+"))
    assert {s.group for s in manifest.samples if s.path.name == "a0_0.png"} == {"mine"}
    assert {s.group for s in manifest.samples if s.path.name == "a0_1.png"} == {"a0"}


def test_given_splits_that_tear_a_group_apart_are_found_by_name(tmp_path):
    clean(tmp_path)  # 0.png and 1.png are in every split
    with pytest.raises(DataError, match="group-leak: 12 images"):
        check_discipline(scan(tmp_path, DataConfig(group_pattern="^[01]")))


def test_no_regular_expression(tmp_path):
    with pytest.raises(ConfigError, match=r"--group-pattern \(: not a regular expression"):
        scan(clean(tmp_path), DataConfig(group_pattern="("))


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "a?a?a?a?aaaa", ".*.*.*=", "(|)(|)(|)(|)(|)(|)", "a" * 101])
def test_what_could_search_for_ever_is_refused(tmp_path, pattern):
    with pytest.raises(ConfigError, match="too much to search for"):
        scan(clean(tmp_path), DataConfig(group_pattern=pattern))


def test_the_slowest_pattern_that_is_let_through_ends():
    sample = Sample(Path("a" * 251 + ".png"), 0, "", "0")
    started = time.perf_counter()
    group_by_name([sample], ".*.*(=|=)(=|=)(=|=)(=|=)(=|=)")
    assert time.perf_counter() - started < 30
