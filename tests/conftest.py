"""For all tests: no network, and a cache of their own."""

from __future__ import annotations

import os
import tempfile

# Read by huggingface_hub when it is imported, and inherited by the processes that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="tlkit-tests-")
