"""``finetune auto``: the network whose features suit the images best, by the first rung of the ladder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tl_kit.config import BudgetConfig, FinetuneConfig
from tl_kit.errors import ConfigError, TlKitError, first_line
from tl_kit.finetuning.finetune import finetune as finetune_one
from tl_kit.finetuning.preparation import training_images
from tl_kit.finetuning.result import FinetuneResult
from tl_kit.fitting.candidates import find_candidates
from tl_kit.machine.ambient import undisturbed
from tl_kit.plain_values import takes_plain_values
from tl_kit.planning.head_probe import probe_network
from tl_kit.reporting import SILENT, Reporter
from tl_kit.training.held_out import HeldOut

__all__ = ["AUTO", "choose_network", "finetune"]

AUTO = "auto"


@takes_plain_values
def finetune(config: FinetuneConfig, *, reporter: Reporter = SILENT) -> FinetuneResult:
    """Fine-tune one model and write its checkpoint folder. Under ``model="auto"``, :func:`choose_network` comes first.

    Raises a subclass of TlKitError for every mistake in the data, the options or the weights. Ctrl-C after the first
    epoch ends the run with the best checkpoint and ``status="interrupted"``; before it, KeyboardInterrupt passes on and
    no folder is left behind. Whatever else ends a run early leaves its last saved state, where there is one:
    ``resume`` goes on from there.
    """
    return finetune_one(choose_network(config, reporter=reporter), reporter=reporter)


@undisturbed()
@takes_plain_values
def choose_network(config: FinetuneConfig, *, reporter: Reporter = SILENT) -> FinetuneConfig:
    """The same options with the name of a network, where they have ``model="auto"``.

    It is the network whose head has the lowest NLL in cross-validation of the training images, among those whose
    weights are on this machine. Validation and test images take no part, so their scores stay what they are. Raises
    ConfigError if there is none, or if no head can be fitted.
    """
    if config.model != AUTO:
        return config
    if config.weights != "auto":
        raise ConfigError(f"--weights {config.weights}: belongs to one network; name it in the place of auto")
    candidates = find_candidates(
        AUTO, img_size=config.img_size, max_params=None, left=0.0, config=BudgetConfig(), reporter=reporter
    )
    if len(candidates) == 1:
        reporter.message(f"network {candidates[0].name}: the only one whose weights are on this machine")
        return replace(config, model=candidates[0].name)
    manifest = training_images(replace(config, model=candidates[0].name), reporter)
    found: dict[str, HeldOut] = {}
    for candidate in candidates:
        try:
            held = probe_network(manifest, replace(config, model=candidate.name), reporter=SILENT)
        except TlKitError as error:
            reporter.message(f"{candidate.name}: left out ({first_line(error)})")
            continue
        if held is not None:
            found[candidate.name] = held
    if not found:
        raise ConfigError("auto: no head can be fitted to these images; name a network")
    best = min(found, key=lambda name: found[name].nll)
    others = [name for name in found if name != best]
    reporter.message(f"network {best}: {_figures(found, [best, *others])} in cross-validation of the training images")
    return replace(config, model=best)


def _figures(found: dict[str, HeldOut], names: Sequence[str]) -> str:
    first, *others = (f"{found[name].accuracy:.1%} (NLL {found[name].nll:.3f})" for name in names)
    return ", ".join([f"its head {first}", *(f"{n} {f}" for n, f in zip(names[1:], others, strict=True))])
