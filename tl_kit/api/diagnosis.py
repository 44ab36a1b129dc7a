"""``doctor``: what is wrong with a data set, before any compute is spent on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tl_kit.ambient import undisturbed
from tl_kit.api.plain import takes_plain_values
from tl_kit.config import DataConfig, DecodeConfig, DoctorConfig
from tl_kit.data.doctor import Finding, Report, examine
from tl_kit.data.limits import check_limits
from tl_kit.measurement import runtime_report
from tl_kit.reporting import SILENT, Reporter

__all__ = ["Finding", "Report", "doctor", "report_dict", "runtime_report"]

_DEFAULT_SPLIT = DataConfig()
_DEFAULT_LIMITS = DoctorConfig()
_DEFAULT_DECODE = DecodeConfig()


@undisturbed()
@takes_plain_values
def doctor(
    data: Path | str,
    *,
    split: DataConfig = _DEFAULT_SPLIT,
    limits: DoctorConfig = _DEFAULT_LIMITS,
    decode: DecodeConfig = _DEFAULT_DECODE,
    reporter: Reporter = SILENT,
) -> Report:
    """Examine a folder or a CSV file: scan it, decode every image, look for leaks, conflicts and imbalance.

    Raises nothing on bad data: that is what the findings are for, and ``blocks`` says whether training would stop.
    """

    def progress(done: int, total: int) -> None:
        if done == 1:
            reporter.start("examine", total)
        reporter.advance()

    check_limits(decode)
    return examine(Path(data), split, limits=limits, decoding=decode, progress=progress)


def report_dict(report: Report) -> dict[str, Any]:
    """A report as plain JSON; ``images`` by split and class, empty if nothing can be trained on."""
    return {
        "data": str(report.root),
        "blocks": report.blocks,
        "images": report.manifest.counts() if report.manifest else {},
        "findings": [
            {
                "severity": finding.severity,
                "code": finding.code,
                "message": finding.message,
                "remedy": finding.remedy,
                "paths": [str(path) for path in finding.paths],
                "sets": [[str(path) for path in members] for members in finding.sets],
            }
            for finding in report.findings
        ],
    }
