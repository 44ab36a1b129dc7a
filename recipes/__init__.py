"""Methods as short, readable functions; each file names its paper, its command and the expected result."""

from recipes.average_ensemble import average_ensemble
from recipes.best_in_budget import best_in_budget
from recipes.bias_tuning import bias_tuning
from recipes.deep_ensemble import deep_ensemble
from recipes.distill import distill
from recipes.finetune_last_layers import finetune_last_layers
from recipes.full_finetune import full_finetune
from recipes.gradual_unfreezing import gradual_unfreezing
from recipes.greedy_soup import greedy_soup
from recipes.kfold_ensemble import kfold_ensemble
from recipes.linear_probe import linear_probe
from recipes.low_rank_adapters import low_rank_adapters
from recipes.lp_ft import lp_ft
from recipes.mc_dropout import mc_dropout
from recipes.norm_tuning import norm_tuning
from recipes.polyak_average import polyak_average
from recipes.snapshot_ensemble import snapshot_ensemble
from recipes.two_views import two_views

__all__ = [
    "average_ensemble",
    "best_in_budget",
    "bias_tuning",
    "deep_ensemble",
    "distill",
    "finetune_last_layers",
    "full_finetune",
    "gradual_unfreezing",
    "greedy_soup",
    "kfold_ensemble",
    "linear_probe",
    "low_rank_adapters",
    "lp_ft",
    "mc_dropout",
    "norm_tuning",
    "polyak_average",
    "snapshot_ensemble",
    "two_views",
]
