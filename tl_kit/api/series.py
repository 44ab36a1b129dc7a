"""Several runs into one folder, one after the other: folds, members. What is finished stays, and is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tl_kit.api.finetuning import Trained, finetune_on
from tl_kit.api.records import SeriesRecords
from tl_kit.config import FinetuneConfig
from tl_kit.data.manifest import SPLITS, Exclusion, Manifest, check_trainable
from tl_kit.reporting import Reporter

__all__ = ["Part", "train_parts"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One run: the name of its folder, what the user reads of it, its configuration and its images."""

    folder: str
    title: str
    config: FinetuneConfig
    manifest: Manifest


def train_parts(
    parts: Sequence[Part],
    records: SeriesRecords,
    done: list[Trained],
    *,
    reporter: Reporter,
    content: str | None = None,
) -> None:
    """Run those that ``records`` do not have; ``done`` takes what is finished.

    What one could not decode, the others need not try. ``content`` as for ``finetune_on``. Raises KeyboardInterrupt
    also where a part was interrupted and has a checkpoint.
    """
    told = _Once(reporter)
    broken: tuple[Exclusion, ...] = ()
    for part in parts:
        manifest = part.manifest.without(broken)
        check_trainable(manifest)
        known = len(manifest.exclusions)
        trained = records.finished(part.folder, manifest, reporter)
        if trained is None:
            counts = ", ".join(f"{len(manifest.split(split)):,} {split}" for split in SPLITS)
            reporter.message(f"{part.title}: {counts}")
            started = records.unfinished(part.folder, reporter)
            options = replace(part.config, out=records.folder / part.folder)
            trained = finetune_on(manifest, options, reporter=told, unfinished=started, content=content)
            if trained.result.status != "finished":
                raise KeyboardInterrupt
            records.save(part.folder, trained, known)
        broken += trained.manifest.exclusions[known:]
        done.append(trained)


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
