"""``report``: writes the page of a result as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_kit._version import __version__
from tl_kit.config import DataConfig, DecodeConfig, ReportLimits, RuntimeConfig
from tl_kit.data.findings import Finding
from tl_kit.data.manifest import Manifest
from tl_kit.diagnosis.examine import doctor
from tl_kit.display import visible
from tl_kit.errors import ConfigError, DataError, TlKitError
from tl_kit.inference.made_splits import split_config, split_of
from tl_kit.machine.ambient import undisturbed
from tl_kit.plain_values import takes_plain_values
from tl_kit.report_page.galleries import fill, wanted_copies, wanted_images, wanted_pairs, wanted_suspects
from tl_kit.report_page.page_facts import Facts, Looks, collect
from tl_kit.report_page.pictures import Album
from tl_kit.report_page.places import look
from tl_kit.report_page.saved_results import Saved, open_result
from tl_kit.report_page.scored import Scored, Suspect, score, score_folds, suspects_in
from tl_kit.report_page.settings_tables import digests, options, times, versions
from tl_kit.reporting import SILENT, Reporter, tell
from tl_kit.storage.atomic import write_text

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["ReportResult", "page_of", "report"]

_LIMITS = ReportLimits()

TEMPLATES = Path(__file__).parent / "templates"
PAGE = "report.html"
_DEPTH = 12  # of a record's entries within entries
_LISTS = ("data", "receipt", "leaderboard", "left_out")


@dataclass(frozen=True)
class ReportResult:
    """The written ``file``, its size in bytes, the result in a sentence, and how many pictures it has."""

    file: Path
    size: int
    sentence: str
    pictures: int


@undisturbed()
@takes_plain_values
def report(
    result: Path | str,
    *,
    data: Path | str | None = None,
    out: Path | str | None = None,
    images: bool = True,
    limits: ReportLimits = _LIMITS,
    decode: DecodeConfig = DecodeConfig(),
    runtime: RuntimeConfig = RuntimeConfig(),
    reporter: Reporter = SILENT,
) -> ReportResult:
    """Write the page of a run, of folds, of an ensemble or of a fit to ``out`` (None: ``report.html`` in its folder).

    ``data``: labelled images to score, None for those of the run; if these are gone, the page has no images and says
    so. ``images`` False: no picture and no file name. Everything in the file is text: names and paths cannot become
    part of the page. Raises CheckpointError for a folder without a result, DataError for ``data`` that is given and
    cannot be scored, ConfigError if the file cannot be written.
    """
    saved = open_result(Path(result))
    file = saved.folder / PAGE if out is None else Path(out)
    if file.is_dir() or not file.parent.is_dir():
        what = "is a folder" if file.is_dir() else "its folder does not exist"
        raise ConfigError(f"--out {file}: {what}; give the name of a file to write")
    if file.exists() and file.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {file}: is there already, and its name is not that of a page (.html); choose another")
    given = None if data is None else Path(data)
    scored, missing = _scored(saved, given, images, decode, runtime, reporter)
    suspects = suspects_in(saved) if saved.kind == "folds" else []
    base = _base(given or saved.data, scored)
    findings, examined = _examined(saved, scored, given or saved.data, limits, decode, reporter)
    looks = Looks()
    if scored is not None and images:
        looks = _looks(saved, scored, suspects, findings, base, limits, decode, runtime, reporter)
    elif scored is not None:
        looks = Looks(notes=("Pictures and names of files were left out (--no-images).",))
    facts = collect(
        saved,
        scored,
        missing=missing,
        looks=looks,
        findings=findings,
        examined=examined,
        suspects=len(suspects),
        limits=limits,
        names=images,
    )
    text = page_of(facts, limits)
    try:
        write_text(file, text)
    except OSError as error:
        raise ConfigError(f"--out {file}: cannot be written ({error.strerror})") from error
    tell(reporter)
    sentence = "".join(part if isinstance(part, str) else part.shown for part in facts.headline)
    return ReportResult(file, len(text.encode()), sentence, text.count("data:image/jpeg"))


def _scored(
    saved: Saved, given: Path | None, images: bool, decode: DecodeConfig, runtime: RuntimeConfig, reporter: Reporter
) -> tuple[Scored | None, str]:
    """The scored images, or None and the reason: images that the record names may be gone, given ones not."""
    if saved.kind == "folds":
        if given is not None and not given.exists():
            raise DataError(f"{given}: no such folder; give the images of the folds")
        return score_folds(saved, given or saved.data), ""
    data = given or saved.data
    if data is None:
        return None, "The record does not say where the images are (--data does): there are no tables of them here."
    try:
        return score(saved, data, decode=decode, runtime=runtime, reporter=reporter), ""
    except DataError as error:
        if given is not None:
            raise
        reporter.message(f"no images in the report: {error}; --data says where they are")
        why = f" ({visible(str(error))})" if images else ""  # which may name a file
        return None, f"The images of the run were not found or cannot be used{why}: no image is shown."


def _base(data: Path | None, scored: Scored | None) -> Path | None:
    """Folder that file names in the page are relative to: the data's, or the common parent of a list's paths."""
    base = None if data is None else data if data.is_dir() else data.parent
    paths = [] if scored is None else [path for path in scored.paths if path.is_absolute()]
    if base is None or not paths or paths[0].is_relative_to(base):
        return base
    return Path(os.path.commonpath([path.parent for path in paths]))


def _examined(
    saved: Saved,
    scored: Scored | None,
    data: Path | None,
    limits: ReportLimits,
    decode: DecodeConfig,
    reporter: Reporter,
) -> tuple[tuple[Finding, ...], str]:
    """The doctor's findings on the splits that the run made, or none and the reason.

    Of folds, copies across the splits of the data say nothing: each fold keeps them together.
    """
    if scored is None or data is None or not data.exists():
        return (), "The images were not examined: they are not there."
    manifest: Manifest | None = scored.manifest
    many = len(scored.labels) if manifest is None else len(manifest.samples)
    if many > limits.examined:
        return (), f"The doctor was not asked about so many images; tlkit doctor --data {visible(str(data))} is."
    if scored.predictor is not None:
        split = split_config(scored.predictor, data)
    else:
        split = split_of(saved.runs[0].content) if saved.runs else DataConfig()
    found = doctor(data, split=split, decode=decode, reporter=reporter).findings
    if saved.kind == "folds":
        found = tuple(finding for finding in found if not finding.code.endswith(("split-leak", "group-leak")))
    return found, ""


def _looks(
    saved: Saved,
    scored: Scored,
    suspects: Sequence[Suspect],
    findings: Sequence[Finding],
    base: Path | None,
    limits: ReportLimits,
    decode: DecodeConfig,
    runtime: RuntimeConfig,
    reporter: Reporter,
) -> Looks:
    """All galleries, with a map beside each image that the model predicted."""
    wanted = wanted_images(scored, limits)
    if saved.kind == "folds":
        wanted.append(wanted_suspects(scored, suspects, base, limits))
    splits = {} if scored.manifest is None else {one.path: one.split for one in scored.manifest.samples}
    if saved.kind != "folds":
        wanted.append(wanted_copies(findings, splits, limits))
    pairs = wanted_pairs(scored, limits)
    shown = dict.fromkeys(index for one in (*wanted, *pairs) for index, *_ in one.images if index is not None)
    try:
        looked, worth, note = look(
            saved, scored, list(shown), limits=limits, decoding=decode, runtime=runtime, reporter=reporter
        )
    except TlKitError as error:  # a fold's checkpoint that is gone, say: the rest of the page stands
        looked, worth, note = {}, None, f"There are no maps: {visible(str(error))}."
    album = Album(limits)
    galleries, filled = (
        tuple(fill(one, album, looked, base=base, decoding=decode, limits=limits) for one in group)
        for group in (wanted, pairs)
    )
    full = f"{album.left} pictures are left out: the file would become too large." if album.left else ""
    return Looks(galleries=galleries, pairs=filled, worth=worth, notes=tuple(one for one in (note, full) if one))


def page_of(facts: Facts, limits: ReportLimits = _LIMITS) -> str:
    """The page as HTML. All text goes through jinja2's autoescape; the script may run by its digest alone."""
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return _template().render(
        facts=facts,
        saved=facts.saved,
        options=options(facts.saved),
        versions=versions(facts.saved),
        digests=digests(facts.saved),
        times=times(facts.saved),
        name=visible(facts.saved.folder.resolve().name),
        version=__version__,
        style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        script=script,
        digest=digest,
        computed=_json(facts.computed),
        record=_readable(facts.saved.record.content, limits),
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")


def _json(content: dict[str, Any]) -> Any:
    """JSON that cannot end the element it stands in."""
    from jinja2.utils import htmlsafe_json_dumps

    return htmlsafe_json_dumps(content, ensure_ascii=True)


def _readable(content: Mapping[str, Any], limits: ReportLimits) -> str:
    """A record as text, without its lists of images and files, without what stands in the page, long lists cut."""
    left = {name: _cut(value, limits) for name, value in content.items() if name not in _LISTS}
    return json.dumps(left, indent=2, ensure_ascii=True)


def _cut(value: Any, limits: ReportLimits, depth: int = 0) -> Any:
    if depth > _DEPTH and isinstance(value, Mapping | list):
        return "\u2026"
    if isinstance(value, Mapping):
        some = list(value.items())
        rest = {"...": f"{len(some) - limits.listed} more"} if len(some) > limits.listed else {}
        return {name[: limits.text]: _cut(one, limits, depth + 1) for name, one in some[: limits.listed]} | rest
    if isinstance(value, list):
        others = [f"... {len(value) - limits.listed} more"] if len(value) > limits.listed else []
        return [*(_cut(one, limits, depth + 1) for one in value[: limits.listed]), *others]
    if isinstance(value, str) and len(value) > limits.text:
        return f"{value[: limits.text]}..."
    return value
