"""For all tests: no network, and a cache of their own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

# Read by huggingface_hub when it is imported, and inherited by the processes that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="tlkit-tests-")


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache for one file's tests alone, where others have the same images.

    Rows that were computed in batches of other sizes differ in the last digit.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
