"""HTML of results for notebooks: small tables and sentences, every text escaped, without scripts or fixed colours."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tl_kit.display import visible

__all__ = ["Bar", "html_block", "html_lines", "html_table"]

_LINE = "1px solid rgba(128,128,128,0.35)"  # seen on white and on black
_CELL = "padding:0.15em 0.7em;background:transparent;"
_BAR = "display:inline-block;height:0.7em;background:rgba(86,180,233,0.75);vertical-align:middle;"
_WIDTH = 8.0


@dataclass(frozen=True)
class Bar:
    """A share from 0 to 1 as a bar with its percentage."""

    share: float


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]], *, align: str, strong: int = -1) -> str:
    """A table; ``align`` has l or r for each column, and the row with the number ``strong`` is in bold."""
    head = "".join(_cell("th", name, side) for name, side in zip(header, align, strict=True))
    lines = []
    for number, row in enumerate(rows):
        cells = (_cell("td", cell, side, strong=number == strong) for cell, side in zip(row, align, strict=True))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "".join(lines)
    top = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    return f'<table style="border-collapse:collapse;margin:0.3em 0">{top}<tbody>{body}</tbody></table>'


def html_lines(lines: Iterable[str]) -> str:
    """Sentences, one below the other."""
    return "".join(f'<div style="font-size:90%;opacity:0.85">{_text(line)}</div>' for line in lines if line)


def html_block(title: str, *parts: str) -> str:
    """A result: its title, if it has one, then parts that are HTML already."""
    head = f"<div><b>{_text(title)}</b></div>" if title else ""
    return f'<div style="line-height:1.35">{head}{"".join(parts)}</div>'


def _cell(tag: str, cell: object, side: str, *, strong: bool = False) -> str:
    style = f"{_CELL}text-align:{'right' if side == 'r' else 'left'};border-bottom:{_LINE};"
    if isinstance(cell, Bar):
        bar = f'<span style="{_BAR}width:{_WIDTH * cell.share:.2f}em"></span> {100 * cell.share:.1f} %'
        return f'<{tag} style="{style}">{bar}</{tag}>'
    return f'<{tag} style="{style}{"font-weight:bold;" if strong else ""}">{_text(str(cell))}</{tag}>'


def _text(text: str) -> str:
    return html.escape(visible(text))
