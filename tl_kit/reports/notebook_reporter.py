"""Progress in notebooks: a Reporter with a bar, which is a widget, and with messages and epochs as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tl_kit.display import EPOCH_FIGURES, figure, figures, visible
from tl_kit.errors import ConfigError
from tl_kit.html_tables import html_block, html_lines, html_table
from tl_kit.optional_packages import check_packages
from tl_kit.reporting import UNKNOWN

__all__ = ["NotebookReporter"]


class NotebookReporter:
    """A Reporter for one cell of a notebook: ``tl_kit.finetune(config, reporter=tl_kit.NotebookReporter())``.

    One bar shows the stage under way; messages and a row for each epoch stand beside it, in one place. Raises
    ConfigError outside of a notebook, and without the packages of ``tl-kit[notebook]``.
    """

    def __init__(self) -> None:
        check_packages("NotebookReporter", "IPython", "ipywidgets", "tqdm", extra="notebook", error=ConfigError)
        from IPython import get_ipython

        if get_ipython() is None:
            raise ConfigError("NotebookReporter: is for notebooks; elsewhere give another reporter, or none")
        self._bar: Any = None
        self._shown: Any = None
        self._messages: list[str] = []
        self._epochs: list[Mapping[str, float]] = []

    def message(self, text: str) -> None:
        """One line for the user."""
        self._messages.append(text)
        self._show()

    def start(self, stage: str, total: int) -> None:
        """A stage begins."""
        from tqdm.auto import tqdm

        known = None if total == UNKNOWN else total
        if self._bar is None:
            self._bar = tqdm(desc=visible(stage), total=known)
            return
        self._bar.set_postfix_str("", refresh=False)
        self._bar.total = known  # a reset without a total would keep the one before
        self._bar.reset(total=known)
        self._bar.set_description(visible(stage))

    def advance(self, steps: int = 1, **shown: float) -> None:
        """Some steps of the stage are done."""
        if self._bar is not None:
            if shown:
                self._bar.set_postfix_str(figures(shown), refresh=False)
            self._bar.update(steps)

    def epoch(self, row: Mapping[str, float]) -> None:
        """An epoch is over."""
        self._epochs.append(dict(row))
        self._show()

    def _show(self) -> None:
        """Draw messages and epochs anew, in the place where they are."""
        from IPython.display import HTML, display

        names = [name for name in EPOCH_FIGURES if any(name in row for row in self._epochs)]
        rows = [[figure(name, row[name]) if name in row else "" for name in names] for row in self._epochs]
        header = [name.replace("_", " ") for name in names]
        table = html_table(header, rows, align="r" * len(header)) if rows else ""
        content = HTML(html_block("", html_lines(self._messages), table))  # type: ignore[no-untyped-call]
        if self._shown is None:
            self._shown = display(content, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._shown.update(content)
