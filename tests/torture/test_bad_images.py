"""Every kind of bad image, by itself, in every command that decodes; and 10,000 mutations of sound files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import children
from tests.data.images import encoded
from tests.helpers import quick, write_images
from tests.images.bad_images import KINDS, plant, reason_of
from tests.images.decoding import reason
from tests.torture.table import record
from tl_kit import evaluate, predict
from tl_kit.config import DecodeConfig, RuntimeConfig
from tl_kit.data.scan import scan
from tl_kit.images.decode import decode

pytestmark = pytest.mark.torture

ROOT = Path(__file__).parents[2]
MUTATIONS, CHUNK = 10_000, 2_000
SECONDS = 300  # of a chunk, which takes some seconds where nothing else runs
PEAK = 2**20  # KiB
PLAIN = RuntimeConfig(precision="fp32")


class Bench:
    """Eight sound images, a model that knows their classes, and a place for one bad file at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sound = write_images(root / "sound", ("red", "green"), images=8)
        self.checkpoint = quick(self.sound, root / "ckpt", policy="head", epochs=None).checkpoint
        rows = predict(self.checkpoint, self.sound, runtime=PLAIN)
        self.alone = {Path(row.source).parts[-2:]: row.label for row in rows}
        self.runs = 0

    def folder(self, kind: str) -> tuple[Path, Path]:
        """A folder with the sound images and one of this kind; and the path of that one."""
        self.runs += 1
        data = write_images(self.root / f"data-{self.runs}", ("red", "green"), images=8)
        return data, plant(data / "red", kind)

    def check_left_out(self, listed: list[dict[str, str]], path: Path) -> None:
        words = reason_of(path.name)
        assert [item["path"] for item in listed] == ([] if words is None else [str(path)])
        assert words is None or words in listed[0]["reason"]

    def scan(self, kind: str) -> None:
        data, path = self.folder(kind)
        manifest = scan(data)
        named = [item.path for item in manifest.exclusions]
        assert named == [path] or path in {sample.path for sample in manifest.samples}
        assert reason_of(kind) is not None or not named
        assert len(manifest.samples) == 16 + (not named)

    def finetune(self, kind: str) -> None:
        data, path = self.folder(kind)
        result = quick(data, self.root / f"run-{self.runs}", epochs=1)
        assert result.status == "finished"
        self.check_left_out(result.left_out, path)

    def evaluate(self, kind: str) -> None:
        data, path = self.folder(kind)
        found = evaluate(self.checkpoint, data, split="all", runtime=PLAIN)
        assert found.images == 16 + (reason_of(kind) is None)
        assert all(np.isfinite(list(found.metrics.values())))
        self.check_left_out(found.left_out, path)

    def predict(self, kind: str) -> None:
        data, path = self.folder(kind)
        rows = {row.source: row for row in predict(self.checkpoint, data, runtime=PLAIN)}
        assert len(rows) == 17
        words, bad = reason_of(kind), rows.pop(str(path))
        assert (bad.error is None) == (words is None)
        assert bad.error is None or (words or "") in bad.error
        for source, row in rows.items():
            assert (row.label, row.error) == (self.alone[Path(source).parts[-2:]], None)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bad"))


@pytest.mark.parametrize("command", ["scan", "finetune", "evaluate", "predict"])
def test_each_kind_by_itself(command: str, bench: Bench) -> None:
    work: Callable[[str], None] = getattr(bench, command)
    lost = []
    for kind in KINDS:
        try:
            work(kind)
        except Exception as error:  # noqa: BLE001 - it is counted
            lost.append(f"{kind!r}: {type(error).__name__}: {error}")
    record(f"a bad image in {command}", tries=len(KINDS), survived=len(KINDS) - len(lost), lost=lost)


@pytest.mark.parametrize(("kind", "fault"), [("images", "a mutated image"), ("csv", "a mutated CSV file")])
def test_mutations(kind: str, fault: str) -> None:
    """In child processes: where the decoder's own libraries fail, they take the process with them."""
    lost: list[str] = []
    for first in range(0, MUTATIONS, CHUNK):
        command = [sys.executable, "-m", "tests.images.fuzzing", kind, str(first), str(first + CHUNK)]
        try:
            done = children.run(command, cwd=ROOT, seconds=SECONDS)
        except subprocess.TimeoutExpired:
            lost += [f"{kind} {first}: took more than {SECONDS} s"] * CHUNK
            continue
        *failures, peak = done.stdout.splitlines() or [""]
        if done.returncode or not peak.startswith("peak "):
            lost += [f"{kind} {first}: the process ended with {done.returncode}: {done.stderr[-200:]}"] * CHUNK
            continue
        lost += failures
        assert done.stderr == "", f"{fault} makes noise"
        assert int(peak.split()[1]) < PEAK, f"{fault} takes {peak} KiB"
    record(fault, tries=MUTATIONS, survived=MUTATIONS - len(lost), lost=lost)


def test_the_limit_on_pixels_is_lifted() -> None:
    """12,000 x 12,000 pixels in 18 kB: refused as a bomb, decoded where the user says so."""
    side = 12_000
    bomb = encoded(Image.new("1", (side, side), 1), "PNG")
    lost = []
    if not reason(bomb).startswith(f"too large: {side}x{side} pixels"):
        lost.append("not refused")
    if decode(bomb, config=DecodeConfig(max_pixels=side * side)).size != (side, side):
        lost.append("not decoded")
    record("a decompression bomb", tries=2, survived=2 - len(lost), lost=lost)
