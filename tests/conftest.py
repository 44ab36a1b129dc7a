"""For all tests: no network, a cache of their own, and no process left behind."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, settings

from tests import children

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Read by huggingface_hub when it is imported, and inherited by the processes that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
_CACHE = Path(tempfile.mkdtemp(prefix="tlkit-tests-"))
os.environ["XDG_CACHE_HOME"] = str(_CACHE)
# A process that is killed while it compiles leaves a part of a file, on which all later ones would fail.
os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(_CACHE / "torchinductor")
# Else every process of the tests compiles all modules again, where the environment asks that nothing be kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported, and for the processes that tests start
    os.environ["OMP_NUM_THREADS"] = "1"

# A busy machine draws its examples slowly: no clock decides whether a test passes.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

_MEMORY = 3 * 2**30
"""Bytes that one process of tests may take, with the processes that its tests start."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For ``-n auto``: one a core that this process may use, as far as memory goes; more than eight gain little."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, psutil.virtual_memory().available // _MEMORY, 8))


def pytest_collection_finish() -> None:
    """What has been loaded by now stays until the end: the garbage collector need not walk through it again and again.

    It also collects less often, in the tests too. Both save a sixteenth of the tests' processor time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def pytest_unconfigure() -> None:
    shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_process_outlives_its_test() -> Iterator[None]:
    """However the test ends."""
    yield
    children.end_all()


@pytest.fixture(scope="session", autouse=True)
def no_disk_is_waited_for() -> Iterator[None]:
    """Syncing guards against power cuts alone, which no test has; a run syncs ten files, and waits for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        patch.setattr(np.memmap, "flush", lambda array: None)
        yield


@pytest.fixture
def plain_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at no picture: to draw a receipt takes longer than to compute it, of so few images."""
    for drawing in ("ensembling.output.draw_receipt", "fitting.fit_result.draw_receipt", "fitting.fit_result.draw_fit"):
        monkeypatch.setattr(f"tl_kit.{drawing}", lambda _, path: path.write_bytes(b"drawn"))


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache for one file's tests alone, where others have the same images.

    Rows that were computed in batches of other sizes differ in the last digit.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Of tensors so small, a busy machine hands out each operation more slowly than it does it."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser without a window; not for the session, since others could run no event loop beside it."""
    from tests.browsers import browsing

    with browsing() as found:
        if found is None:
            pytest.skip("no browser is found: install chromium")
        yield found
