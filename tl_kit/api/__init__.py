"""What users call; the command line calls the same functions and only prints."""

from tl_kit.api.catalog import models
from tl_kit.api.demonstration import demo
from tl_kit.api.diagnosis import doctor
from tl_kit.api.ensembles import EnsembleResult, ensemble
from tl_kit.api.evaluation import Evaluation, evaluate
from tl_kit.api.finetuning import FinetuneResult, finetune
from tl_kit.api.folds import CrossValidation, cross_validate
from tl_kit.api.planning import Plan, plan
from tl_kit.api.prediction import predict
from tl_kit.api.predictor import Prediction, Predictor, load
from tl_kit.api.resuming import resume

__all__ = [
    "CrossValidation",
    "EnsembleResult",
    "Evaluation",
    "FinetuneResult",
    "Plan",
    "Prediction",
    "Predictor",
    "cross_validate",
    "demo",
    "doctor",
    "ensemble",
    "evaluate",
    "finetune",
    "load",
    "models",
    "plan",
    "predict",
    "resume",
]
