"""The page at ``/``: one file of the package, and the policy by which a browser runs its own parts alone."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from importlib.resources import files

__all__ = ["page"]

_PARTS = {
    "script": re.compile(r"<script>(.*?)</script>", re.DOTALL),
    "style": re.compile(r"<style>(.*?)</style>", re.DOTALL),
}


@lru_cache(maxsize=1)
def page() -> tuple[str, str]:
    """The page's text, and its Content-Security-Policy: its own style and script, by their digests, and nothing else.

    It may show images that the user chose (blob, data) and talk to this server. It sends nothing anywhere else.
    """
    text = files("tl_kit.serving").joinpath("page.html").read_text(encoding="utf-8")
    rules = {name: " ".join(_digest(part) for part in found.findall(text)) for name, found in _PARTS.items()}
    return text, (
        f"default-src 'none'; script-src {rules['script']}; style-src {rules['style']}; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(part: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'"
