"""Training table: images and labels as the CSV file that a run reads, and the run's errors in the caller's words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tl_kit.class_names import nfc
from tl_kit.data.listing import EXPECTED
from tl_kit.errors import TlKitError
from tl_kit.inference.run_models import Source
from tl_kit.sklearn.given_images import write_source
from tl_kit.storage.atomic import write_csv

__all__ = ["TrainingTable", "class_names"]

_LINE = re.compile(r"(^|: |; | in )line (\d+)(?=[:;]| already| \(|$)")
_ALLOW = re.compile(r"add((?: --allow [\w-]+)+)")


@dataclass
class TrainingTable:
    """Rows of a CSV file in ``folder``, and where each of them comes from: ``X[3]``."""

    folder: Path
    rows: list[tuple[str, ...]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The CSV file."""
        return self.folder / "images.csv"

    def add(self, images: Sequence[Source], labels: Sequence[str], *, name: str = "X", split: str = "") -> None:
        """Add images with their labels. What is no file becomes one, named after its place in ``X``."""
        for index, (source, label) in enumerate(zip(images, labels, strict=True)):
            place = f"{name}[{index}]"
            path = write_source(source, self.folder / place)
            self.rows.append((str(path), label, split))
            self.places.append(place)

    def write(self) -> Path:
        """Write the file, without a column of splits where none is given."""
        width = 3 if any(split for *_, split in self.rows) else 2
        header = ("path", "label", "split")
        write_csv(self.path, header[:width], [row[:width] for row in self.rows])
        return self.path

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors inside name images by their place in ``X``, and no file or line that the caller does not know."""
        try:
            yield
        except TlKitError as error:
            raise type(error)(self.reworded(str(error))) from error

    def reworded(self, text: str) -> str:
        """The text of an error or a message, in the caller's words."""
        table = shlex.quote(str(self.path))
        for unknown in (
            f"; {EXPECTED}",
            f"; `tlkit doctor --data {table} --json` lists all",
            f" (tlkit doctor --data {table} lists all)",
        ):
            text = text.replace(unknown, "")
        text = text.replace(str(self.path), "X, y").replace(f"{self.folder}/", "")
        text = text.replace("add a val split", "give fit validation=(X, y)")
        text = _ALLOW.sub(lambda match: f'give options={{"allow": {match[1].split()[1::2]}}}', text)
        return _LINE.sub(self._place, text)

    def _place(self, match: re.Match[str]) -> str:
        line = int(match[2])
        return match[1] + self.places[line - 2] if 2 <= line < len(self.places) + 2 else match[0]


def class_names(labels: Sequence[object]) -> list[str]:
    """A class name for each of the distinct labels: its text, or ``class N`` where texts are empty or not distinct."""
    texts = [str(label) for label in labels]
    plain = [nfc(text.strip()) for text in texts]
    usable = plain == texts and all(text.isprintable() and text for text in texts) and len(set(texts)) == len(texts)
    return texts if usable else [f"class {number}" for number in range(len(texts))]
