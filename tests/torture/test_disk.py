"""A disk that fills up wherever a run writes: one clear line, or a run that is finished; and whole files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import write_images
from tests.torture.disks import FileLimit, small_disk
from tests.torture.processes import NO_FORKS, Command
from tests.torture.table import record
from tl_kit import load
from tl_kit.storage.checkpoint import is_checkpoint
from tl_kit.storage.saved_states import StateFolder

OPTIONS = ("--img-size", 32, "--batch-size", 4, "--policy", "full", "--epochs", 3, "--save-every", 0.01)
SIZES = (8, 64, 400, 1000, 1500, 1900, 1950, 2500, 3500, 3900, 4500, 5500, 6500, 8000, 10_000, 14_000, 18_000, 40_000)

pytestmark = [pytest.mark.torture, pytest.mark.skipif(NO_FORKS, reason="no fork server on this system")]


def problems(process: Command, out: Path) -> list[str]:
    """What is wrong with how a run ended and with what it left."""
    code, text = process.wait(), process.text()
    found = []
    if code not in (0, 2):
        found.append(f"ended with {code}: {text[-300:]}")
    if code == 2 and not text.splitlines()[-1].startswith(f"error: {out}"):
        found.append(f"said {text.splitlines()[-1]}")
    if "Traceback" in text:
        found.append("a traceback")
    found += [f"left {path}" for path in out.rglob("*.tmp")]
    if is_checkpoint(out):
        load(out)
    StateFolder(out).load()
    if code == 0 and not is_checkpoint(out):
        found.append("finished without a checkpoint")
    return found


@pytest.mark.parametrize("way", ["a small tmpfs", "a bound on files (EFBIG)"])
def test_a_disk_of_every_size(way: str, tmp_path: Path) -> None:
    data = write_images(tmp_path / "images", images=10)
    command = ("finetune", "test_resnet", "--data", data, "--weights", "none", *OPTIONS)
    lost, codes = [], set()
    for size in SIZES:
        log = tmp_path / f"{size}.log"
        if way == "a small tmpfs":
            with small_disk(tmp_path / f"disk-{size}", kilobytes=size) as disk:
                process = Command([*command, "--out", disk / "run"], log)
                wrong = problems(process, disk / "run")
        else:
            out = tmp_path / f"run-{size}"
            process = Command([*command, "--out", out], log, limits=FileLimit(size))
            wrong = problems(process, out)
        codes.add(process.wait())
        lost += [f"{size} kB: {'; '.join(wrong)}"] if wrong else []
    assert codes == {0, 2}, "some sizes are enough, and some are not"
    record(f"disk full: {way}", tries=len(SIZES), survived=len(SIZES) - len(lost), lost=lost)
