"""The guard where several networks or processes are at work: members, folds, students, ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tl_kit
from tests.finetuning.head_guard.helpers import ORDER, run_on
from tests.helpers import quick_config, same, weights
from tests.ranks import in_two_processes, two_processes
from tl_kit.storage.checkpoint import read_meta


def test_members_and_folds_are_guarded_each(data: Path, tmp_path: Path) -> None:
    config = quick_config(data, tmp_path / "members", weights=str(data.parent / "pretrained"))
    members = tl_kit.finetune_members(config, members=2)
    for member in members.members:
        assert read_meta(Path(member.checkpoint))["guard"]["kept"] in ORDER
    config = quick_config(data, tmp_path / "folds", weights=str(data.parent / "pretrained"))
    folds = tl_kit.cross_validate(config, folds=3)
    for fold in folds.folds:
        record = read_meta(Path(fold.checkpoint))
        assert record["guard"]["kept"] in ORDER
        assert record["test"] == fold.test


def test_members_that_are_one_head_are_told(data: Path, tmp_path: Path, choose: Callable[[str], None]) -> None:
    choose("head")
    config = quick_config(data, tmp_path / "members", weights=str(data.parent / "pretrained"))
    runs = tl_kit.finetune_members(config, members=2)
    assert [member.kept for member in runs.members] == ["head", "head"]
    assert same(*(weights(member.checkpoint) for member in runs.members))
    assert any(note.startswith("member-1, member-2: are one network, the fitted head") for note in runs.notes)


def test_a_student_is_compared_with_its_head_too(data: Path, head: Path, tmp_path: Path) -> None:
    distill = tl_kit.DistillConfig(teacher=head)
    run = run_on(data, tmp_path / "run", policy="full", distill=distill)
    assert run.guard is not None
    assert set(run.guard["compared"]) == set(ORDER)


SCRIPT = """
import os
import sys
from pathlib import Path
from tests.helpers import quick
run = quick(Path(sys.argv[1]), Path(sys.argv[2]), weights=sys.argv[3], policy="full")
Path(f"guard-{os.environ['RANK']}").write_text(repr((run.guard, run.val, run.test)))
"""


@two_processes
def test_several_processes_keep_the_same(data: Path, tmp_path: Path) -> None:
    in_two_processes(SCRIPT, tmp_path, data, tmp_path / "two", data.parent / "pretrained")
    one, two = ((tmp_path / f"guard-{rank}").read_text() for rank in range(2))
    assert one == two
    assert "'kept'" in one
