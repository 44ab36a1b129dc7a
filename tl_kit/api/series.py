"""Several runs into one folder, one after the other: folds, members. What is finished stays, and is said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator

from tl_kit.api.finetuning import Trained, finetune_on
from tl_kit.config import FinetuneConfig
from tl_kit.data.manifest import SPLITS, Exclusion, Manifest, check_trainable
from tl_kit.errors import TlKitError
from tl_kit.reporting import Reporter
from tl_kit.training.checkpoint import is_checkpoint

__all__ = ["Part", "kept", "train_parts"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One run: the name of its folder, what the user reads of it, its configuration and its images."""

    folder: str
    title: str
    config: FinetuneConfig
    manifest: Manifest


def train_parts(
    parts: Sequence[Part], folder: Path, done: list[Trained], *, reporter: Reporter, content: str | None = None
) -> None:
    """Run them; ``done`` takes what is finished. What one could not decode, the others need not try.

    ``content`` as for ``finetune_on``. Raises KeyboardInterrupt also where a part was interrupted and has a checkpoint.
    """
    told = _Once(reporter)
    broken: tuple[Exclusion, ...] = ()
    for part in parts:
        manifest = part.manifest.without(broken)
        check_trainable(manifest)
        counts = ", ".join(f"{len(manifest.split(split)):,} {split}" for split in SPLITS)
        reporter.message(f"{part.title}: {counts}")
        config = replace(part.config, out=folder / part.folder)
        trained = finetune_on(manifest, config, reporter=told, content=content)
        if trained.result.status != "finished":
            raise KeyboardInterrupt
        broken += trained.manifest.exclusions[len(manifest.exclusions) :]
        done.append(trained)


@contextmanager
def kept(
    parts: Sequence[Part],
    folder: Path,
    done: Sequence[Trained],
    *,
    what: str,
    accelerator: Accelerator,
    reporter: Reporter,
) -> Iterator[None]:
    """Whatever ends the work early, what is left is said, and no empty folder is. ``what``: "folds", "members"."""
    try:
        yield
    except KeyboardInterrupt:
        left = _left_over(parts, folder, len(done), what)
        raise KeyboardInterrupt(*([left] if left else [])) from None
    except TlKitError:
        if left := _left_over(parts, folder, len(done), what):
            reporter.message(left)
        raise
    finally:
        if accelerator.is_main_process and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _left_over(parts: Sequence[Part], folder: Path, finished: int, what: str) -> str:
    """What an early end leaves behind; empty if it is nothing."""
    stopped = folder / parts[finished].folder if finished < len(parts) else None
    unfinished = stopped is not None and is_checkpoint(stopped)
    if not finished and not unfinished:
        return ""
    best = f"; the best checkpoint so far of the next one is in {stopped}" if unfinished else ""
    return f"{finished} of {len(parts)} {what} are finished, in {folder}{best}"


class _Once:
    """Passes on progress, and each message once: most of what a part has to say, the one before has said."""

    def __init__(self, reporter: Reporter) -> None:
        self.start, self.advance, self.epoch = reporter.start, reporter.advance, reporter.epoch
        self._reporter = reporter
        self._said: set[str] = set()

    def message(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._reporter.message(text)
