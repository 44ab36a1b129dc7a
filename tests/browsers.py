"""A real browser without a window, and what axe-core finds in the page that it shows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "chrome", "msedge")


def program(own: str) -> str | None:
    """A browser that playwright has installed (its own path), or one of the system."""
    return own if Path(own).is_file() else next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextmanager
def browsing() -> Iterator[Browser | None]:
    """A browser; None where there is none."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # for whom chromium has no sandbox
    with sync_playwright() as driver:
        path = program(driver.chromium.executable_path)
        if path is None:
            yield None
            return
        found = driver.chromium.launch(executable_path=path, args=["--no-sandbox"] if root else [])
        yield found
        found.close()


def grave_faults(page: Page) -> list[str]:
    """Faults of accessibility that axe-core calls serious or critical, each with the first element that has it."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{fault['id']}: {fault['help']}: {fault['nodes'][0]['html'][:200]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]
