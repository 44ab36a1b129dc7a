"""A report's page in its elements, as a program reads it."""

from __future__ import annotations

import html.parser
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Page", "read"]


@dataclass
class Page(html.parser.HTMLParser):
    """Elements of a page: their attributes by tag, figures with their texts, and all text outside of scripts."""

    found: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    figures: list[tuple[str, str, str]] = field(default_factory=list)
    text: str = ""
    scripts: list[str] = field(default_factory=list)
    inside: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        values = dict(attrs)
        self.found.append((tag, values))
        if tag == "data":
            self.figures.append((values["data-source"] or "", values["value"] or "", ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append(data)
        elif self.inside != "style":
            self.text += data
        if self.inside == "data":
            self.figures[-1] = (*self.figures[-1][:2], data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [values for name, values in self.found if name == tag]

    @property
    def computed(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[0])
        return found


def read(file: Path) -> Page:
    page = Page()
    page.feed(file.read_text(encoding="utf-8"))
    return page
