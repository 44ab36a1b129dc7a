"""Does the decoder, or the CSV reader, bear what a seed makes of a sound file? As a command, for a child process too.

``python -m tests.images.fuzzing images|csv FIRST STOP`` prints the failures, a line each, and the peak of memory.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from tests.images.mutations import SEEDS, mutate, mutate_csv
from tl_kit.config import DecodeConfig
from tl_kit.data.csvfile import list_csv
from tl_kit.errors import DataError, ImageError
from tl_kit.images.decode import check_header, decode
from tl_kit.images.deep import SampleRanges

__all__ = ["csv_failure", "image_failure", "run"]

LIMITS = DecodeConfig(max_pixels=2**20)
RANGES = SampleRanges.of({"uint16": (0, 4095), "int16": (-1000, 3000), "float32": (0, 1)})
SECONDS = 10.0  # a file: on a machine that does other things as well


def image_failure(number: int) -> str | None:
    """What is wrong with the decoding of the mutation of this number; None if nothing is."""
    name = sorted(SEEDS)[number % len(SEEDS)]
    data = mutate(name, number)
    return _watched(lambda: _decode(data, None) or _decode(data, 8, RANGES), f"{name} {number}")


def _decode(data: bytes, min_side: int | None, ranges: SampleRanges | None = None) -> str | None:
    try:
        image = decode(data, min_side=min_side, config=LIMITS, ranges=ranges)
    except ImageError as error:
        return _badly_said(str(error))
    if image.mode != "RGB" or not 1 <= image.width * image.height <= LIMITS.max_pixels:
        return f"mode {image.mode}, size {image.size}"
    if len(image.tobytes()) != 3 * image.width * image.height:
        return "pixels are missing"
    check_header(data, config=LIMITS)  # what decodes has a sound header
    return None


def csv_failure(number: int) -> str | None:
    """The same of a CSV file."""

    def read() -> str | None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "labels.csv"
            (Path(folder) / "a.png").write_bytes(b"1")
            file.write_bytes(mutate_csv(number))
            try:
                listing = list_csv(file)
            except DataError as error:
                return None if str(error).startswith(str(file)) else f"does not name the file: {error}"
            bad = [exclusion.reason for exclusion in listing.exclusions if not exclusion.reason.startswith("line ")]
            return f"no line number: {bad}" if bad else None

    return _watched(read, f"csv {number}")


def _badly_said(text: str) -> str | None:
    if "\n" in text or not text.isprintable() or not 0 < len(text) < 150 or " at 0x" in text:
        return f"badly said: {text!r}"
    return None


def _watched(work: Callable[[], str | None], what: str) -> str | None:
    """Runs ``work``; a warning, another exception, or a long time are failures as well."""
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it should not be
            found = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - started
    if found is None and caught:
        found = f"warns: {caught[0].message}"
    if found is None and seconds > SECONDS:
        found = f"took {seconds:.1f} s"
    return None if found is None else f"{what}: {found}"


def run(failure: Callable[[int], str | None], first: int, stop: int) -> list[str]:
    """Failures of the mutations from ``first`` on."""
    return [text for text in map(failure, range(first, stop)) if text is not None]


def main(kind: str, first: str, stop: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, resource.RLIM_INFINITY))
    failures = run(image_failure if kind == "images" else csv_failure, int(first), int(stop))
    for text in failures:
        print(text.encode("unicode_escape").decode("ascii"))
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(*sys.argv[1:])
