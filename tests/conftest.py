"""For all tests: no network."""

from __future__ import annotations

import os

# Read by huggingface_hub when it is imported, and inherited by the processes that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
