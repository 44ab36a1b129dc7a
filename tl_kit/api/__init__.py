"""What users call; the command line calls the same functions and only prints."""

from tl_kit.api.catalog import models
from tl_kit.api.demonstration import demo
from tl_kit.api.diagnosis import doctor
from tl_kit.api.distillation import Distillation, check_student, distill, student_config
from tl_kit.api.ensembles import EnsembleResult, ensemble
from tl_kit.api.evaluation import Evaluation, evaluate
from tl_kit.api.finetuning import FinetuneResult, finetune
from tl_kit.api.folds import CrossValidation, cross_validate
from tl_kit.api.member_runs import MemberRuns, finetune_members
from tl_kit.api.planning import Plan, plan
from tl_kit.api.prediction import predict
from tl_kit.api.predictor import Prediction, Predictor, load
from tl_kit.api.resuming import resume

__all__ = [
    "CrossValidation",
    "Distillation",
    "EnsembleResult",
    "Evaluation",
    "FinetuneResult",
    "MemberRuns",
    "Plan",
    "Prediction",
    "Predictor",
    "check_student",
    "cross_validate",
    "demo",
    "distill",
    "doctor",
    "ensemble",
    "evaluate",
    "finetune",
    "finetune_members",
    "load",
    "models",
    "plan",
    "predict",
    "resume",
    "student_config",
]
