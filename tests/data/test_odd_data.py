"""Odd data: cut archives, empty cells, lost splits, groups that the data names, names of files in copies."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.data.images import write_classes
from tests.data.packing import class_folders, images_of, tar, zipped
from tests.data.scans import error, write_csv
from tl_kit.config import DataConfig
from tl_kit.data.exclusions import unscored_now
from tl_kit.data.manifest import Exclusion
from tl_kit.data.scan import scan
from tl_kit.diagnosis.examine import examine, report_dict
from tl_kit.diagnosis.split_checks import check_discipline, doubts
from tl_kit.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "imgs", {"a": 6, "b": 6, "c": 6})


def rows(folder: Path, extra: str = "", *, header: str = "path,label") -> str:
    return "\n".join([header, *(f"{p.relative_to(folder.parent)},{name}{extra}" for name, p in images_of(folder))])


def test_a_tar_that_is_cut_between_two_members_is_damaged(folder: Path, tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole.tar", class_folders(folder))
    assert len(scan(whole).samples) == 18
    with tarfile.open(whole) as archive:
        starts = [member.offset for member in archive.getmembers() if member.name.startswith("c/")]
    for at in (starts[0], starts[3], starts[0] + 100):
        (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:at])
        assert "is damaged" in error(tmp_path / "cut.tar"), at


def test_minus_one_beside_numbers_is_doubted_as_a_class_but_not_beside_one(folder: Path, tmp_path: Path) -> None:
    def found(names: dict[str, str]) -> list[str]:
        text = rows(folder)
        for old, new in names.items():
            text = text.replace(f",{old}\n", f",{new}\n").removesuffix(f",{old}") + (f",{new}" if old == "c" else "")
        return [line for line in doubts(scan(write_csv(tmp_path, text))) if "'-1'" in line]

    assert len(found({"a": "0", "b": "1", "c": "-1"})) == 1
    assert found({"a": "-1", "b": "1", "c": "1"}) == []


def test_a_group_that_stands_for_an_empty_cell_is_none(folder: Path, tmp_path: Path) -> None:
    lines = rows(folder, header="path,label,group").splitlines()
    lines[1:] = [f"{line},{'nan' if number % 2 else number}" for number, line in enumerate(lines[1:])]
    manifest = scan(write_csv(tmp_path, "\n".join(lines)))
    assert sum(sample.group is None for sample in manifest.samples) == 9
    assert "9 images have the group 'nan', as programs write an empty cell: they are in no group" in manifest.notes


def test_a_given_split_without_a_readable_file_is_told(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write_classes(tmp_path / "d" / split, {"a": 3, "b": 3}, seed=len(split))
    for file in (tmp_path / "d" / "test").rglob("*.png"):
        file.write_bytes(b"no image")
    line = "the test split is lost: none of its 6 files can be read"
    assert line in doubts(scan(tmp_path / "d"))
    assert line in [finding.message for finding in examine(tmp_path / "d").findings]


def test_classes_and_splits_that_lose_their_last_image_are_named(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write_classes(tmp_path / split, {"a": 3, "b": 3}, seed=len(split))
    before = scan(tmp_path)

    def without(split: str, *labels: int) -> list[str]:
        gone = [s.path for s in before.split(split) if s.label in labels]
        return unscored_now(before, before.without(Exclusion(path, "broken") for path in gone))

    assert without("test", 1) == ["warning: test has no image of 'b' left: its scores say nothing of that"]
    assert without("val", 0, 1) == ["warning: no image of the val split is left, so that nothing is scored on it"]
    assert without("train", 1) == []
    assert unscored_now(before, before) == []


def test_groups_of_the_data_are_not_counted_as_groups_by_name(folder: Path, tmp_path: Path) -> None:
    lines = rows(folder, header="path,label,group").splitlines()
    lines[1:] = [f"{line},{f'g{number}' if number < 12 else ''}" for number, line in enumerate(lines[1:])]
    notes = scan(write_csv(tmp_path, "\n".join(lines)), DataConfig(group_pattern="^[0-9]")).notes
    assert "6 groups by file name; 0 of 18 images are in none" in notes
    assert "12 of 18 images have their group from the data, where --group-pattern is not used" in notes


def test_a_pattern_that_matches_no_name_is_an_error_to_train_and_none_to_score(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--group-pattern zzz: matches no file name, such as 0"):
        scan(folder, DataConfig(group_pattern="zzz"))
    assert len(scan(folder, DataConfig(group_pattern="zzz"), trainable=False).samples) == 18


def test_an_error_about_groups_names_the_pattern(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no validation image.*--group-pattern png"):
        scan(folder, DataConfig(group_pattern="png"))


def test_findings_name_files_as_the_archive_or_the_table_does(folder: Path, tmp_path: Path) -> None:
    members = class_folders(folder)
    twin = members[0][1]
    archive = zipped(tmp_path / "set.zip", [*members, ("c/twin.png", twin)])
    data = [bytes for _, bytes in members] + [twin]
    labels = [name.partition("/")[0] for name, _ in members] + ["c"]
    parquet.write_table(pa.table({"image": data, "label": labels}), tmp_path / "set.parquet")
    for path, names in {
        archive: {"a/0.png", "c/twin.png"},
        tmp_path / "set.parquet": {"row 1", "row 19"},
    }.items():
        conflict = next(f for f in examine(path).findings if f.code == "label-conflict")
        assert {str(each.relative_to(path)) for each in conflict.paths} == names
        assert "cache" not in str(report_dict(examine(path)))
        with pytest.raises(DataError) as caught:
            check_discipline(scan(path))
        assert all(f"{path.name}/{name}" in str(caught.value) for name in names)


def test_test_images_alone_are_scored_and_not_trained_on(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    folder.rename(tmp_path / "only" / "test")
    assert "there is 'test' but no train folder" in error(tmp_path / "only")
    assert len(scan(tmp_path / "only", trainable=False).split("test")) == 18
    table = write_csv(tmp_path / "only", rows(tmp_path / "only" / "test", ",test", header="path,label,split"))
    assert "'test' has images, but train has none" in error(table)
    assert len(scan(table, trainable=False).split("test")) == 18


@pytest.mark.parametrize("others", [(), ("test",)])
def test_validation_images_without_training_images_are_scored_and_not_lost(
    others: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    for split in ("val", *others):
        shutil.copytree(folder, tmp_path / "some" / split)
    lines = [rows(tmp_path / "some" / split, f",{split}", header="") for split in ("val", *others)]
    table = write_csv(tmp_path / "some", "path,label,split" + "".join(lines))
    for path in (table, tmp_path / "some"):
        manifest = scan(path, trainable=False)
        assert manifest.made_splits == ()
        assert {split: len(manifest.split(split)) for split in ("val", "test")} == {"val": 18, "test": 18 * len(others)}
        assert "train" in error(path)
        table.unlink(missing_ok=True)


def test_a_table_beside_a_lone_test_folder_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    folder.rename(tmp_path / "only" / "test")
    write_csv(tmp_path / "only", rows(tmp_path / "only" / "test"))
    assert scan(tmp_path / "only").made_splits == ("val", "test")


def test_a_row_again_with_another_group_says_so(folder: Path, tmp_path: Path) -> None:
    text = "path,label,group\nimgs/a/0.png,a,x\nimgs/b/0.png,b,x\nimgs/a/0.png,a,y\n"
    assert "line 4: imgs/a/0.png is listed with another group in line 2" in error(write_csv(tmp_path, text))


def test_a_separator_that_a_first_line_names(folder: Path, tmp_path: Path) -> None:
    text = rows(folder).replace(",", ";")
    plain = scan(write_csv(tmp_path, text))
    assert scan(write_csv(tmp_path, f"sep=;\n{text}", name="b.csv")).samples == plain.samples
    assert "b.csv: line 9: no label" in error(
        write_csv(tmp_path, f"sep=;\n{text}".replace(";b\n", ";\n", 1), name="b.csv")
    )


def test_a_table_in_an_archive_has_no_path_of_its_own(folder: Path, tmp_path: Path) -> None:
    members = [*class_folders(folder), ("labels.csv", rows(folder).replace("imgs/", "").encode())]
    notes = scan(zipped(tmp_path / "set.zip", members)).notes
    assert any("to use labels.csv in their place, unpack the archive and give its path" in note for note in notes)


def test_broken_json_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    assert "is no JSON" in error(tmp_path / "a.json")
