"""The rows of the table: name, flags, equation, and the test that proves it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ROWS", "Row"]


@dataclass(frozen=True)
class Row:
    section: str
    name: str
    flags: tuple[str, ...]
    equation: str
    test: str
    crops: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What a result is kept under: the command."""
        return " ".join([*self.flags, *self.crops])


UPDATE = "test_update_rules"
SHAPE = "test_schedules"
PENALTY = "test_penalties"
FLAGS = "test_every_flag_counts"


def _optimizer(name: str, equation: str, test: str = UPDATE) -> Row:
    return Row("Optimizers", name, ("--optimizer", name), equation, test)


def _schedule(name: str, equation: str) -> Row:
    return Row("Learning-rate decay", name, ("--schedule", name), equation, SHAPE)


def _regularizer(name: str, flags: str, equation: str, test: str) -> Row:
    return Row("Regularization", name, tuple(flags.split()), equation, test)


def _augmentation(name: str, flags: str, equation: str) -> Row:
    return Row("Augmentation", name, tuple(flags.split()), equation, "test_augmentation")


def _crops(name: str, flags: str, equation: str) -> Row:
    return Row("Fixed crops at test time", name, (), equation, "test_crops", tuple(flags.split()))


ROWS = (
    Row("The run that all others change", "last:2, momentum, cosine", (), "see below", UPDATE),
    _optimizer("sgd", "x −= αg"),
    _optimizer("momentum", "v = ρv + g; x −= αv"),
    _optimizer("nesterov", "v = ρv + g; x −= α(g + ρv)"),
    _optimizer("adagrad", "s += g²; x −= αg/(√s + ε)"),
    _optimizer("rmsprop", "s = βs + (1−β)g²; x −= αg/(√s + ε)"),
    _optimizer("adam", "x −= αm̂/(√ŝ + ε), both moments corrected"),
    _optimizer("adam-uncorrected", "x −= αm/(√s + ε)"),
    _optimizer("adamw", "adam; x −= αλx on its own"),
    _optimizer("lion", "x −= α·sign(βm + (1−β)g)", "timm's"),
    _optimizer("muon", "orthogonalised momentum", "timm's"),
    _optimizer("adan", "Nesterov's look-ahead in Adam's moments", "timm's"),
    _optimizer("kron", "Kronecker-factored preconditioner (PSGD)", "timm's"),
    _optimizer("adahessian", "Adam with the Hessian's diagonal for g²", "timm's"),
    Row(
        "Optimizers",
        "lbfgs, head only",
        ("--policy", "head", "--optimizer", "lbfgs"),
        "quasi-Newton on a convex loss",
        "test_head",
    ),
    Row(
        "Optimizers",
        "newton, head only",
        ("--policy", "head", "--optimizer", "newton"),
        "x −= H⁻¹g, by conjugate gradients",
        FLAGS,
    ),
    _schedule("constant", "α₀"),
    _schedule("step", "α₀γ^⌊t/s⌋"),
    _schedule("multistep", "α₀γ^(milestones passed)"),
    _schedule("exponential", "α₀e^(−kt)"),
    _schedule("inverse", "α₀/(1 + kt)"),
    _schedule("cosine", "α₀(1 + cos πt)/2"),
    _schedule("linear", "α₀(1 − t)"),
    _schedule("poly", "α₀(1 − t)^p"),
    _schedule("onecycle", "cosine up, then down"),
    _schedule("plateau", "α₀γ^(drops after stalls of validation)"),
    _schedule("cyclic", "cosine, restarted"),
    _schedule("wsd", "α₀, then 1−√ down to 0"),
    Row("Learning-rate decay", "a longer warm-up", ("--warmup", "2"), "α₀(t+1)/(T+1), before", SHAPE),
    Row("Learning-rate decay", "range test", ("--lr", "auto"), "steepest fall of the loss", "test_range_test"),
    Row("Learning-rate decay", "layer-wise rates", ("--layer-decay", "0.75"), "αd^depth", "test_groups"),
    _regularizer("no L2", "--weight-decay 0", "the default is λ = 0.05", PENALTY),
    _regularizer("decoupled decay", "--optimizer adamw --weight-decay 0.5", "x −= αλx", UPDATE),
    _regularizer("L1", "--l1 0.0001", "+ λΣabs(w)", PENALTY),
    _regularizer("L2 in the loss", "--weight-decay 0 --l2 0.05", "+ λ/2·Σw²", PENALTY),
    _regularizer("L2-SP", "--weight-decay 0 --l2-sp 0.05", "+ λ/2·Σ(w − w⁰)²", PENALTY),
    _regularizer("dropout", "--dropout 0.3", "activations · mask/(1−p)", FLAGS),
    _regularizer("DropConnect", "--drop-connect 0.3", "weights · mask/(1−p)", "test_dropconnect"),
    _regularizer("last:3, for the next row", "--policy last:3", "last:2 has no residual branch here", FLAGS),
    _regularizer("stochastic depth", "--policy last:3 --drop-path 0.2", "residual branches · mask/(1−p)", FLAGS),
    _regularizer("label smoothing", "--label-smoothing 0.1", "targets (1−ε)y + ε/K", FLAGS),
    _regularizer("mixup", "--mixup 0.2", "λx + (1−λ)x′, labels too", "test_mixing"),
    _regularizer("cutmix", "--cutmix 1", "a rectangle of x′, labels by area", "test_mixing"),
    _regularizer("averaged weights", "--ema 0.95", "a = da + (1−d)w", "test_averaging"),
    _augmentation("none", "--augment none", "the crop of evaluation"),
    _augmentation("light", "--augment light", "crops of 70 to 100 %, flips"),
    _augmentation("standard", "--augment standard", "crops of 35 to 100 %, flips"),
    _augmentation("strong", "--augment strong", "20 to 100 %, flips, colour, erasing"),
    _augmentation("the lecture's crop", "--aug crop=short-side", "short side 256/224 to 480/224, a square"),
    _augmentation("brightness, contrast", "--aug brightness=0.4 --aug contrast=0.4", "factors from 0.6 to 1.4"),
    _augmentation("PCA lighting", "--aug lighting=0.1", "+ P(a·λ), a normal"),
    _augmentation("random erasing", "--aug erasing=0.25", "a rectangle in the mean colour"),
    _crops("5 crops", "--crops 5", "mean of probabilities"),
    _crops("10 crops", "--crops 10", "and of mirror images"),
    _crops("3 scales", "--scales 1,1.15,1.3", "centre crops"),
)
