"""Defaults of training: the head, the loop, regularization, averages, probes and policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from tl_kit.flags import Flag
from tl_kit.number_ranges import AT_LEAST_ONE, AT_LEAST_TWO, BELOW_ONE, FRACTION, NOT_NEGATIVE, POSITIVE

__all__ = [
    "AdapterConfig",
    "AutoPolicyConfig",
    "GuardConfig",
    "HeadConfig",
    "KeptEpoch",
    "LoopConfig",
    "NanAnswer",
    "PenaltyConfig",
    "ProbeConfig",
    "RangeTestConfig",
    "RegularizationConfig",
    "RollbackConfig",
    "Selection",
    "SwaConfig",
]

NanAnswer: TypeAlias = Literal["stop", "rollback"]
KeptEpoch: TypeAlias = Literal["auto", "best", "last"]
Selection: TypeAlias = Literal["auto", "accuracy", "balanced-accuracy", "macro-f1", "nll"]


@dataclass(frozen=True, kw_only=True)
class PenaltyConfig:
    """A penalised softmax regression on scaled features (``ScalingConfig``), and the choice of its penalty.

    ``strengths`` are scikit-learn's C times the number of images, which suits few images and many alike: half decades,
    weakest penalty last. Of those within ``errors`` standard errors of the lowest loss out of fold, the one nearest to
    ``usual`` is taken; that is also the one of fits that cannot be cross-validated. A step takes images x features x
    classes multiplications. From ``one_fold_from`` of them on, one fold is held out instead of ``folds``. Below
    ``one_thread_below``, which take about 1 ms, one thread does a step; above, several threads share it in parts of a
    fifth of that (to wake a thread takes 0.05 ms). From ``on_device_from`` on, a CUDA GPU does it, if there is one:
    with fewer, sixteen cores need about as long as the GPU's launches and copies.
    ``rough`` and ``fine`` are tolerances of the gradient, out of fold and in the last fit. Features of more than
    ``rotate_up_to`` images and channels are not rotated into their principal axes.
    docs/policies.md has the figures that chose ``usual`` and ``errors``.
    """

    strengths: Annotated[tuple[float, ...], POSITIVE] = tuple(10 ** (number / 2) for number in range(-4, 9))
    usual: Annotated[float, POSITIVE] = 10.0
    errors: Annotated[float, NOT_NEGATIVE] = 1.0
    folds: Annotated[int, AT_LEAST_TWO] = 5
    one_fold_from: int = 1_000_000_000
    one_thread_below: int = 20_000_000
    on_device_from: int = 200_000_000
    rotate_up_to: int = 2048
    rough: Annotated[float, POSITIVE] = 3e-4
    fine: Annotated[float, POSITIVE] = 3e-5
    max_iter: Annotated[int, POSITIVE] = 500


@dataclass(frozen=True, kw_only=True)
class HeadConfig(PenaltyConfig):
    """The head in closed form, on cached features.

    ``solver`` is lbfgs or newton. ``c``: scikit-learn's C, where it is not to be chosen.
    Where the layers below train afterwards, the head starts with ``start_strength`` (C times images): fitted as closely
    as it can be, it would leave them nothing to learn (Ren et al. 2023, "How to prepare your task head for
    finetuning"). Heads of fewer than ``cross_validate_below`` multiplications a step (images x features x classes) are
    cross-validated too, over ``folds``.
    ``refit``: once its penalty is chosen, the head that a run ends with is fitted to the validation images too. The
    head fitted without them is kept beside it, for all that is measured on them.
    """

    c: Annotated[float | None, POSITIVE] = None
    start_strength: Annotated[float, POSITIVE] = 0.1
    solver: str = "lbfgs"
    cross_validate_below: int = 30_000_000
    refit: Annotated[
        bool,
        Flag(
            panel="What trains",
            name="--refit/--no-refit",
            help="Fit a head in closed form to val too, at the end; val is scored by the head from before.",
        ),
    ] = True


@dataclass(frozen=True, kw_only=True)
class RegularizationConfig:
    """Regularizers of the gradient methods; 0 or None: off, or as the model has it.

    ``l1``, ``l2`` and ``l2_sp`` are strengths of penalties added to the loss; ``dropout``, ``drop_connect`` and
    ``drop_path`` probabilities of dropping activations, weights of linear layers, and residual branches;
    ``mixup`` and ``cutmix`` the alpha of their Beta distributions; ``ema`` the decay of the averaged weights; ``swa``
    whether a uniform average of them is tried at the end (``SwaConfig``).
    """

    l1: Annotated[float, Flag(panel="Regularisation", help="Strength of the penalty on absolute weights.")] = 0.0
    l2: Annotated[
        float, Flag(panel="Regularisation", help="Strength of half the squared weights, whatever the optimizer.")
    ] = 0.0
    l2_sp: Annotated[
        float, Flag(panel="Regularisation", help="The same on the distance from the pretrained weights.")
    ] = 0.0
    dropout: Annotated[
        float | None,
        BELOW_ONE,
        Flag(
            panel="Regularisation",
            common=True,
            metavar="P",
            help="Dropout before the head (default: as the model has it).",
        ),
    ] = None
    drop_connect: Annotated[
        float,
        BELOW_ONE,
        Flag(panel="Regularisation", metavar="P", help="Drop weights of the linear layers that train."),
    ] = 0.0
    drop_path: Annotated[
        float | None,
        BELOW_ONE,
        Flag(panel="Regularisation", metavar="P", help="Stochastic depth (default: as the model has it)."),
    ] = None
    label_smoothing: Annotated[
        float, BELOW_ONE, Flag(panel="Regularisation", metavar="P", help="Share of a label spread over all classes.")
    ] = 0.0
    mixup: Annotated[
        float,
        Flag(panel="Regularisation", common=True, metavar="ALPHA", help="Blend pairs of images and labels; 0: off."),
    ] = 0.0
    cutmix: Annotated[
        float, Flag(panel="Regularisation", metavar="ALPHA", help="Paste pieces of other images; 0: off.")
    ] = 0.0
    ema: Annotated[
        float | None,
        BELOW_ONE,
        Flag(panel="Regularisation", metavar="DECAY", help="Evaluate and keep a moving average of the weights."),
    ] = None
    swa: Annotated[
        bool,
        Flag(
            panel="Regularisation",
            help="Average the weights of the later epochs, and keep that where val finds it no worse.",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class SwaConfig:
    """Stochastic weight averaging: of the epochs (``cyclic``: cycles) that end after this share of the run.

    ``schedule`` is that of the rate where the user names none.
    """

    start: Annotated[float, BELOW_ONE] = 0.75
    schedule: str = "constant"


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Low-rank adapters: the product is scaled by ``alpha``, LoRA's alpha divided by its rank.

    2 is what Biderman et al. 2024, "LoRA learns less and forgets less", recommend.
    """

    alpha: Annotated[int, AT_LEAST_ONE] = 2


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """The fitted head that is compared, at the end, with what trained below it, and averages of the two's weights.

    ``alphas`` are the trained network's shares in the averages that are tried (Wortsman et al. 2022, "Robust
    fine-tuning of zero-shot models", find 0.5 near the best on most sets). ``noise``: of two networks, one is worse in
    accuracy where it is so by more than so many standard errors of the paired difference. Of those that are not worse,
    the one of lowest NLL is kept. ``beside``: a second network is kept where the mean of the two's probabilities lowers
    the NLL by more than so many. Where BatchNorm trains with the batch's statistics, those of an average are estimated
    anew, on ``statistics_images`` training images at most. ``refitted``: the head is compared as it is after it was
    fitted to validation images too (cross-validated); False where the trained network may train on them as well, later.
    """

    head_guard: Annotated[
        bool,
        Flag(
            panel="What trains",
            name="--head-guard/--no-head-guard",
            help="Keep the best by val of fitted head, trained network and averages of their weights.",
        ),
    ] = True
    alphas: Annotated[tuple[float, ...], FRACTION] = (0.25, 0.5, 0.75)
    noise: Annotated[float, POSITIVE] = 2.0
    beside: Annotated[float, POSITIVE] = 2.0
    statistics_images: Annotated[int, AT_LEAST_ONE] = 512
    refitted: bool = True


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(PenaltyConfig):
    """Linear probes on pooled features of at most ``stages`` stages: the images looked at, and how they are fitted."""

    stages: Annotated[int, AT_LEAST_ONE] = 5
    images: Annotated[int, AT_LEAST_ONE] = 2000


@dataclass(frozen=True, kw_only=True)
class RangeTestConfig:
    """Learning rate range test: in ``steps`` the rate rises from ``lowest`` to ``highest`` times the usual one.

    It stops at ``stop_at`` times the lowest loss, or times ``least_loss`` where the lowest is below: a head that starts
    almost without error has losses whose ratios say nothing.
    """

    steps: Annotated[int, AT_LEAST_ONE] = 100
    lowest: Annotated[float, POSITIVE] = 1e-4
    highest: Annotated[float, POSITIVE] = 10.0
    smoothing: Annotated[float, BELOW_ONE] = 0.9
    stop_at: Annotated[float, POSITIVE] = 4.0
    least_loss: Annotated[float, POSITIVE] = 0.1
    trim: int = 5


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Defaults of the training loop for options that ``FinetuneConfig`` leaves at ``None``.

    ``bare_optimizer`` trains networks without BatchNorm, and those where it follows less than half of what trains.
    Few images make few steps: there are more than ``epochs`` epochs, up to ``most_epochs``, where these would be fewer
    than ``least_steps`` steps; from random weights, up to ``scratch_most_epochs`` for ``scratch_steps``.
    docs/policies.md has the figures. ``patience`` ends a run early only under the schedules of ``stops_early``, which
    have no end of their own: a rate that decays does its best work at the end. The schedules of ``decays_to_nothing``
    keep the last epoch. Under policies that keep statistics, pretrained BatchNorm normalises by its running ones where
    there are fewer than ``batch_statistics_from`` training images.
    ``weight_decay`` is coupled (an L2 penalty) or decoupled, as the optimizer has it (None: ``OptimizerDefaults`` says
    how much); norms and biases are exempt.
    ``clip_norm`` bounds the gradient's norm; 0: it is not bounded. ``layer_decay`` multiplies the rate of each layer
    below the head once more.
    """

    optimizer: str = "momentum"
    bare_optimizer: str = "adamw"
    gradient_head_optimizer: str = "adamw"
    schedule: str = "cosine"
    epochs: Annotated[int, AT_LEAST_ONE] = 12
    least_steps: int = 200
    most_epochs: Annotated[int, AT_LEAST_ONE] = 30
    scratch_steps: int = 1000
    scratch_most_epochs: Annotated[int, AT_LEAST_ONE] = 60
    head_epochs: Annotated[int, AT_LEAST_ONE] = 100
    patience: Annotated[int, AT_LEAST_ONE] = 5
    stops_early: tuple[str, ...] = ("constant", "plateau")
    decays_to_nothing: tuple[str, ...] = ("cosine", "linear", "poly", "onecycle", "wsd")
    batch_statistics_from: int = 300
    batch_size: Annotated[int, AT_LEAST_ONE] = 32
    warmup_epochs: Annotated[
        float, Flag(panel="Optimisation", name="--warmup", metavar="EPOCHS", help="The rate rises evenly for so long.")
    ] = 0.5
    weight_decay: Annotated[
        float | None,
        Flag(
            panel="Regularisation",
            help="In the gradient (L2), or decoupled (adamw), as the optimizer has it (default: by optimizer).",
        ),
    ] = None
    clip_norm: Annotated[float, Flag(panel="Optimisation", help="Largest norm of the gradient; 0: any.")] = 1.0
    layer_decay: Annotated[
        float | None, FRACTION, Flag(panel="Optimisation", help="Factor on the rate for each layer below the head.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class AutoPolicyConfig:
    """``--policy auto``: from ``last_groups_from`` images on, the last groups train; with fewer, all layers do.

    The last groups are the fewest that hold ``last_share`` of the network's parameters, the classifier not counted: the
    last three of an EfficientNet-Lite0, two of a ResNet or ConvNeXt, eight of a ViT.
    """

    last_groups_from: int = 300
    last_share: Annotated[float, FRACTION] = 0.5


@dataclass(frozen=True, kw_only=True)
class RollbackConfig:
    """``--on-nan rollback``: at most so often, each time at ``factor`` of the rate that it had before."""

    most: int = 3
    factor: Annotated[float, POSITIVE] = 0.5
