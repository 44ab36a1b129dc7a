"""500 mutations of the decoder's and the CSV reader's files; ``pytest -m torture`` has 10,000 of each."""

from __future__ import annotations

import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.images.fuzzing import csv_failure, image_failure
from tests.images.mutations import SEEDS, mutate, mutate_csv
from tl_kit.images.decode import decode

MUTATIONS = settings(max_examples=500, deadline=None)
NUMBERS = st.integers(0, 2**31)
MOST = 512 * 2**10  # KiB that the largest of these images may take, several times over


@pytest.mark.parametrize("name", SEEDS)
def test_the_files_that_are_mutated_are_sound(name: str) -> None:
    assert decode(SEEDS[name]).size in ((20, 20), (16, 16))


def test_mutations_are_new_and_repeat() -> None:
    several = [mutate(name, number) for name in SEEDS for number in range(20)]
    assert len(set(several)) > 0.9 * len(several)
    assert several[7] == mutate(next(iter(SEEDS)), 7)
    assert len({mutate_csv(number) for number in range(100)}) > 80


@MUTATIONS
@given(NUMBERS)
def test_a_mutated_image_is_an_image_or_an_image_error(number: int) -> None:
    assert image_failure(number) is None


@MUTATIONS
@given(NUMBERS)
def test_a_mutated_csv_file_is_a_listing_or_a_data_error(number: int) -> None:
    assert csv_failure(number) is None


def test_neither_stderr_nor_memory_is_filled(capfd: pytest.CaptureFixture[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    failures = [image_failure(number) for number in range(20 * len(SEEDS))]
    assert set(failures) == {None}
    out, err = capfd.readouterr()
    # The AV1 decoder within Pillow before 12.3 writes such lines itself, and offers no switch.
    assert (out, [line for line in err.splitlines() if not line.startswith("Unknown OBU type")]) == ("", [])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST
