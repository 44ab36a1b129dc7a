"""The result of a fit: test images are predicted once, and the folder gets its leaderboard and its receipt."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tl_kit import metrics
from tl_kit.combining.contributions import Subsets
from tl_kit.combining.receipt import Receipt, Worth, build_receipt
from tl_kit.config import EnsembleConfig, RuleFitConfig
from tl_kit.data.manifest import Manifest, Sample
from tl_kit.display import figure
from tl_kit.fitting.best_result import Best, Pool, choose_best, fitted_on, pool_of_runs
from tl_kit.fitting.budget import Budget
from tl_kit.fitting.journal import Journal
from tl_kit.fitting.leaderboard import Fastest, Row, fastest_of, rows_of, story
from tl_kit.html_tables import html_block, html_lines, html_table
from tl_kit.inference.labelled import Predicted, predict_labelled
from tl_kit.inference.prediction import Prediction
from tl_kit.inference.predictor import Predictor, load
from tl_kit.reporting import Reporter
from tl_kit.reports.fit_picture import draw_fit
from tl_kit.reports.receipt_picture import draw_receipt
from tl_kit.storage.config_json import to_json
from tl_kit.storage.ensemble_folder import PICTURE, describe_again, is_ensemble
from tl_kit.storage.fit_folder import fit_scores, write_fit
from tl_kit.storage.seen_images import kinds_of, uses_of

__all__ = ["LEADERBOARD", "FitResult", "finish"]

LEADERBOARD = "leaderboard.png"


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """Result of a fit. ``folder`` is what ``predict`` and ``evaluate`` take; ``best`` the checkpoint or ensemble in it.

    ``members``: the names of its members in the leaderboard. ``val``: its scores on validation images, each predicted
    by members and a temperature that were chosen without its fold; the epochs, what each run's head guard kept, and
    which networks were trained were still chosen on all of them. ``selected_val``: the scores that chose it, too good
    as estimates. ``test`` is None without test images; they are predicted after all choices, and ``readings`` counts
    how often, since a fit may be resumed. ``fastest``: the fastest result that validation cannot tell from the best.
    ``stopped``: why there was no further step. ``story``: five sentences. ``offers``: commands that promise more.
    """

    folder: str
    best: str
    classes: tuple[str, ...]
    members: tuple[str, ...]
    leaderboard: tuple[Row, ...]
    val: dict[str, float]
    selected_val: dict[str, float]
    test: dict[str, Any] | None
    fastest: Fastest | None
    stopped: str
    seconds: float
    story: tuple[str, ...]
    offers: tuple[str, ...] = ()

    @property
    def picture(self) -> str:
        """The picture of the leaderboard, a PNG file."""
        return str(Path(self.folder) / LEADERBOARD)

    def predict(self, images: Any) -> list[Prediction]:
        """Predictions of the best result, as :meth:`tl_kit.Predictor.predict` gives them."""
        return load(self.folder).predict(images)

    def _repr_html_(self) -> str:
        """The leaderboard and the story, for a notebook."""
        rows = [
            [
                f"{row.name}{'*' if row.chosen else ''}",
                row.what,
                f"{row.seconds:.0f}",
                row.status if row.accuracy is None else figure("accuracy", row.accuracy),
                *("" if value is None else figure("nll", value) for value in (row.nll, row.together)),
            ]
            for row in self.leaderboard
        ]
        header = ["", "step", "s", "val* accuracy", "nll", "ensemble nll"]
        note = "*: in the result. val*: validation chose epochs and networks by it."
        return html_block(
            "leaderboard",
            html_table(header, rows, align="llrrrr"),
            html_lines([note, *self.story, f"result: {self.folder}"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        plain: dict[str, Any] = to_json(self)
        return plain


def finish(
    journal: Journal,
    whole: Manifest,
    best: Best,
    *,
    stopped: str,
    budget: Budget,
    reporter: Reporter,
) -> FitResult:
    """Predict the test images by the best result's members, and write leaderboard, receipt and ``fit.json``."""
    pool = pool_of_runs(journal.entries)
    predictor = load(best.folder, decode=journal.config.decode, runtime=journal.config.runtime)
    tests = predict_labelled(predictor, whole, whole.split("test"), data=whole.root, reporter=reporter)
    val = metrics.summary(best.choice.whole.estimate, pool.labels)
    rows = rows_of(journal.entries, pool, best.chosen)
    fastest = fastest_of(pool, choose_best(pool, journal.config, prefer="speed"))
    journal.readings += tests is not None
    test = None if tests is None else {**_test_scores(tests, predictor, pool, best), "readings": journal.readings}
    receipt = _receipt(journal, pool, best, predictor, tests)
    seconds = budget.elapsed
    lines = story(rows, seconds=seconds, val=val, test=test, fastest=fastest, stopped=stopped)
    result = FitResult(
        folder=str(journal.folder),
        best=str(best.folder),
        classes=whole.classes,
        members=best.chosen,
        leaderboard=tuple(rows),
        val=val,
        selected_val=metrics.summary(best.choice.whole.scored, pool.labels),
        test=test,
        fastest=fastest,
        stopped=stopped,
        seconds=seconds,
        story=tuple(lines),
        offers=_offers(journal, best, rows),
    )
    draw_fit([asdict(row) for row in rows], journal.folder / LEADERBOARD)
    splits = _splits(pool, tests)
    content = {
        **result.to_dict(),
        "best": str(best.folder.relative_to(journal.folder)),
        "status": "finished",
        "receipt": receipt,
        "kinds": kinds_of(splits, predictor.uses | fitted_on(pool)),
        "images": {split: len(samples) for split, samples in splits.items()},
    }
    plain: Mapping[str, Any] | None = None if receipt is None else dict(receipt)
    describe_again(best.folder, further=fit_scores(content), receipt=plain)
    write_fit(journal.folder, content)
    return result


def _splits(pool: Pool, tests: Predicted | None) -> dict[str, list[Sample]]:
    """The images that scored the result."""
    return {"val": list(pool.samples), "test": [] if tests is None else list(tests.samples)}


def _test_scores(tests: Predicted, predictor: Predictor, pool: Pool, best: Best) -> dict[str, Any]:
    """Test scores of the result and, where it has several members, of the one that is best by validation."""
    stack, labels = tests.predictions.members, tests.predictions.labels
    scores: dict[str, Any] = {**metrics.summary(predictor.rule(stack), labels), "images": len(labels)}
    if lacking := [name for label, name in enumerate(predictor.classes) if label not in labels]:
        scores["without"] = lacking
    if len(stack) > 1:
        chosen = best.choice.members
        ranked = [(metrics.nll(pool.stack[member], pool.labels), place) for place, member in enumerate(chosen)]
        scores["best_member"] = metrics.summary(stack[min(ranked)[1]], labels)
    return scores


def _receipt(journal: Journal, pool: Pool, best: Best, predictor: Predictor, tests: Predicted | None) -> Receipt | None:
    """The receipt of an ensemble, and its picture in the ensemble's folder; None for a single checkpoint."""
    if not is_ensemble(best.folder) or len(best.choice.members) < 2:
        return None
    splits = _splits(pool, tests)
    uses = predictor.uses | fitted_on(pool)
    receipt = build_receipt(
        [str(member.path) for member in predictor.members],
        best.choice.whole.fitted,
        validation=Subsets(
            whole=best.choice.whole,
            stack=pool.stack[list(best.choice.members)],
            labels=pool.labels,
            config=RuleFitConfig(),
            seed=journal.config.seed,
        ),
        test=None if tests is None else tests.predictions,
        samples=EnsembleConfig.bootstrap,
        seed=journal.config.seed,
        worth=Worth(
            members=[kinds_of(splits, uses_of(member)) for member in predictor.members],
            ensemble=kinds_of(splits, uses),
            chose=uses.chose,
        ),
    )
    draw_receipt(receipt, best.folder / PICTURE)
    return receipt


def _offers(journal: Journal, best: Best, rows: Sequence[Row]) -> tuple[str, ...]:
    """A command that trains one fast network on the ensemble's predictions."""
    if len(best.chosen) < 2:
        return ()
    timed = [row for row in rows if row.latency is not None]
    fastest = min(timed, key=lambda row: row.latency or 0.0)
    return (f"tlkit ensemble {shlex.quote(str(journal.folder))} --distill {shlex.quote(fastest.network)}",)
