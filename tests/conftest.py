"""For all tests: no network, and a cache of their own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import children

# Read by huggingface_hub when it is imported, and inherited by the processes that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
_CACHE = Path(tempfile.mkdtemp(prefix="tlkit-tests-"))
os.environ["XDG_CACHE_HOME"] = str(_CACHE)
# A process that is killed while it compiles leaves a part of a file, on which all later ones would fail.
os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(_CACHE / "torchinductor")


def pytest_unconfigure() -> None:
    shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_process_outlives_its_test() -> Iterator[None]:
    """However the test ends."""
    yield
    children.end_all()


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache for one file's tests alone, where others have the same images.

    Rows that were computed in batches of other sizes differ in the last digit.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
