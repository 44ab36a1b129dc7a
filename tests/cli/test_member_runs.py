"""``tlkit finetune --members`` and ``--snapshots``: what is printed, and how it ends."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from tests.cli.helpers import MODEL, TINY, Outcome, tlkit
from tests.torture.processes import NO_FORKS, Command
from tl_kit.storage.checkpoint import is_checkpoint

pytestmark = pytest.mark.usefixtures("plain_pictures")

SHORT = (*TINY, "--policy", "full", "--epochs", 2, "--batch-size", 8)


@pytest.fixture(scope="module")
def shown(images: Path) -> tuple[Path, Outcome]:
    out = images.parent / "[bold]my members"
    return out, tlkit("finetune", MODEL, "--data", images, *SHORT, "--members", 2, "--vary", "bootstrap", "--out", out)


def test_the_table_shows_what_the_summary_holds(shown: tuple[Path, Outcome]) -> None:
    out, done = shown
    assert done.code == 0, done.err
    summary = json.loads((out / "members.json").read_text())
    assert [Path(member["checkpoint"]).name for member in summary["members"]] == ["member-1", "member-2"]
    for member in summary["members"]:
        name = f"member-{member['member']}"
        line = next(line for line in done.out.splitlines() if line.startswith(f"{name} "))
        assert re.split(r" {2,}", line)[1:] == [
            f"bootstrap sample {member['member']}",
            str(member["images"]["train"]),
            *(
                figure
                for split in ("val", "test")
                for figure in (f"{100 * member[split]['accuracy']:.1f} %", f"{member[split]['nll']:.3f}")
            ),
            f"{member['seconds']:.1f} s",
        ]
    assert "member 1 of 2, bootstrap sample 1: " in done.err


def test_the_command_that_is_shown_combines_them(shown: tuple[Path, Outcome], tmp_path: Path) -> None:
    out, done = shown
    line = next(line for line in done.out.splitlines() if line.startswith("combine them: "))
    assert line == f"combine them: tlkit ensemble '{out}'/member-*"
    combined = tlkit("ensemble", *sorted(out.glob("member-*")), "--out", tmp_path / "ensemble")
    assert combined.code == 0, combined.err
    everything = tlkit("ensemble", *sorted(out.glob("*")), "--out", tmp_path / "other")
    assert everything.code == 2
    assert everything.err.splitlines()[-1].endswith(f"config.yaml: is a file, not a checkpoint; give {out}/member-*")


def test_json_is_one_object(images: Path, tmp_path: Path) -> None:
    found = tlkit("finetune", MODEL, "--data", images, *SHORT, "--members", 2, "--out", tmp_path / "m", "--json").json
    assert set(found) == {"folder", "vary", "classes", "copies", "members", "seconds", "command"}
    assert [member["varied"] for member in found["members"]] == ["seed 0", "seed 1"]


def test_snapshots_have_a_table_and_a_command_of_their_own(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = tlkit("finetune", MODEL, "--data", images, *SHORT, "--snapshots", 2, "--late", 1, "--out", out)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    meta = json.loads((out / "snapshot-1" / "tlkit.json").read_text())
    row = next(line for line in lines if line.startswith("snapshot-1 "))
    assert re.split(r" {2,}", row)[1:3] == [str(meta["step"]), f"{100 * meta['val']['accuracy']:.1f} %"]
    assert f"combine them: tlkit ensemble {out}/snapshot-*" in lines
    assert not any("epoch-*" in line for line in lines), "one alone is nothing to combine"
    assert all(is_checkpoint(out / name) for name in ("", "snapshot-1", "snapshot-2", "epoch-2"))


@pytest.mark.skipif(NO_FORKS, reason="no fork server on this system")
def test_ctrl_c_keeps_the_finished_members_and_says_so(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = (*TINY, "--policy", "full", "--epochs", 1, "--members", 10, "--out", out)
    command = ("finetune", MODEL, "--data", images, *options, "--json")
    process = Command(command, tmp_path / "err", out=tmp_path / "out")
    assert process.wait_for("\nmember 2 of 10")
    process.send(signal.SIGINT)
    assert (process.wait(), (tmp_path / "out").read_text()) == (130, "")
    assert process.text().splitlines()[-1].startswith("interrupted: 1 of 10 members are finished, in ")
    assert is_checkpoint(out / "member-1")
