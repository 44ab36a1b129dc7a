"""tl-kit: transfer learning and ensembling of image classifiers on timm's model zoo.

>>> import tl_kit
>>> run = tl_kit.finetune(tl_kit.FinetuneConfig(model="resnet18", data="imgs"))  # doctest: +SKIP
>>> tl_kit.load(run.checkpoint).predict("photo.jpg")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tl_kit._version import __version__
from tl_kit.config import (
    AugmentConfig,
    AutoPolicyConfig,
    BalanceConfig,
    CacheConfig,
    CropConfig,
    DataConfig,
    DistillConfig,
    EnsembleConfig,
    ExportConfig,
    FetchConfig,
    FinetuneConfig,
    FitConfig,
    HeadConfig,
    LoopConfig,
    PushConfig,
    RangeTestConfig,
    RegularizationConfig,
    RuntimeConfig,
    SaveConfig,
    ServeConfig,
    SoupConfig,
    StoreConfig,
    StreamConfig,
    SwaConfig,
    TrackingConfig,
)
from tl_kit.errors import TlKitError
from tl_kit.machine.forks import survive_forks
from tl_kit.machine.process import share_the_cores
from tl_kit.machine.user_cache import prepare_libraries

if TYPE_CHECKING:
    from tl_kit.demonstration import DemoResult as DemoResult
    from tl_kit.demonstration import demo
    from tl_kit.diagnosis.examine import Report as Report
    from tl_kit.diagnosis.examine import doctor
    from tl_kit.diagnosis.examine import report_dict as report_dict
    from tl_kit.ensembling.ensemble import EnsembleResult, ensemble
    from tl_kit.exporting.export import ExportResult, export
    from tl_kit.exporting.parity import Parity as Parity
    from tl_kit.exporting.push import PushResult, push
    from tl_kit.finetuning.result import FinetuneResult
    from tl_kit.fitting.fit import fit, resume_fit
    from tl_kit.fitting.fit_result import FitResult
    from tl_kit.fitting.network_choice import choose_network, finetune
    from tl_kit.inference.evaluate import Evaluation, evaluate
    from tl_kit.inference.kept_outputs import keeping_outputs as keeping_outputs
    from tl_kit.inference.predict import PredictedFile, predict, predict_stream, predict_to_file
    from tl_kit.inference.predict import PredictionStream as PredictionStream
    from tl_kit.inference.predict import csv_text as csv_text
    from tl_kit.inference.prediction import Prediction
    from tl_kit.inference.predictor import Predictor, load
    from tl_kit.inference.streaming.path_list import PathList
    from tl_kit.inference.streaming.row_texts import Rows as Rows
    from tl_kit.machine.machine_report import runtime_report as runtime_report
    from tl_kit.machine.process_group import alone as alone
    from tl_kit.machine.process_group import leads as leads
    from tl_kit.machine.user_cache import cache_line as cache_line
    from tl_kit.planning.plan import Plan, plan
    from tl_kit.report_page.page import ReportResult, report
    from tl_kit.reports.notebook_reporter import NotebookReporter
    from tl_kit.series.cross_validate import CrossValidation, cross_validate
    from tl_kit.series.distill import Distillation, distill
    from tl_kit.series.distill import check_student as check_student
    from tl_kit.series.distill import student_config as student_config
    from tl_kit.series.finetune_members import MemberRuns, finetune_members
    from tl_kit.series.finetune_members import member_configs as member_configs
    from tl_kit.series.resume import began_with as began_with
    from tl_kit.series.resume import resume
    from tl_kit.serving.server import serve
    from tl_kit.storage.feature_cache import cache_report as cache_report
    from tl_kit.storage.feature_cache import clear_cache as clear_cache
    from tl_kit.storage.known_models import known_models as known_models
    from tl_kit.zoo.catalog import models

__all__ = [
    "AugmentConfig",
    "AutoPolicyConfig",
    "BalanceConfig",
    "CacheConfig",
    "CropConfig",
    "CrossValidation",
    "DataConfig",
    "DistillConfig",
    "Distillation",
    "EnsembleConfig",
    "EnsembleResult",
    "Evaluation",
    "ExportConfig",
    "ExportResult",
    "FetchConfig",
    "FinetuneConfig",
    "FinetuneResult",
    "FitConfig",
    "FitResult",
    "HeadConfig",
    "LoopConfig",
    "MemberRuns",
    "NotebookReporter",
    "PathList",
    "Plan",
    "PredictedFile",
    "Prediction",
    "Predictor",
    "PushConfig",
    "PushResult",
    "RangeTestConfig",
    "RegularizationConfig",
    "ReportResult",
    "RuntimeConfig",
    "SaveConfig",
    "ServeConfig",
    "SoupConfig",
    "StoreConfig",
    "StreamConfig",
    "SwaConfig",
    "TlKitError",
    "TrackingConfig",
    "__version__",
    "choose_network",
    "cross_validate",
    "demo",
    "distill",
    "doctor",
    "ensemble",
    "evaluate",
    "export",
    "finetune",
    "finetune_members",
    "fit",
    "load",
    "models",
    "plan",
    "predict",
    "predict_stream",
    "predict_to_file",
    "push",
    "report",
    "resume",
    "resume_fit",
    "serve",
]


_MODULES = {
    "CrossValidation": "tl_kit.series.cross_validate",
    "DemoResult": "tl_kit.demonstration",
    "Distillation": "tl_kit.series.distill",
    "EnsembleResult": "tl_kit.ensembling.ensemble",
    "Evaluation": "tl_kit.inference.evaluate",
    "ExportResult": "tl_kit.exporting.export",
    "FinetuneResult": "tl_kit.finetuning.result",
    "FitResult": "tl_kit.fitting.fit_result",
    "MemberRuns": "tl_kit.series.finetune_members",
    "NotebookReporter": "tl_kit.reports.notebook_reporter",
    "Parity": "tl_kit.exporting.parity",
    "Plan": "tl_kit.planning.plan",
    "PathList": "tl_kit.inference.streaming.path_list",
    "PredictedFile": "tl_kit.inference.predict",
    "Prediction": "tl_kit.inference.prediction",
    "PredictionStream": "tl_kit.inference.predict",
    "Predictor": "tl_kit.inference.predictor",
    "PushResult": "tl_kit.exporting.push",
    "Report": "tl_kit.diagnosis.examine",
    "Rows": "tl_kit.inference.streaming.row_texts",
    "ReportResult": "tl_kit.report_page.page",
    "alone": "tl_kit.machine.process_group",
    "began_with": "tl_kit.series.resume",
    "cache_line": "tl_kit.machine.user_cache",
    "cache_report": "tl_kit.storage.feature_cache",
    "check_student": "tl_kit.series.distill",
    "choose_network": "tl_kit.fitting.network_choice",
    "clear_cache": "tl_kit.storage.feature_cache",
    "cross_validate": "tl_kit.series.cross_validate",
    "csv_text": "tl_kit.inference.predict",
    "demo": "tl_kit.demonstration",
    "distill": "tl_kit.series.distill",
    "doctor": "tl_kit.diagnosis.examine",
    "ensemble": "tl_kit.ensembling.ensemble",
    "evaluate": "tl_kit.inference.evaluate",
    "export": "tl_kit.exporting.export",
    "finetune": "tl_kit.fitting.network_choice",
    "finetune_members": "tl_kit.series.finetune_members",
    "fit": "tl_kit.fitting.fit",
    "keeping_outputs": "tl_kit.inference.kept_outputs",
    "known_models": "tl_kit.storage.known_models",
    "leads": "tl_kit.machine.process_group",
    "load": "tl_kit.inference.predictor",
    "member_configs": "tl_kit.series.finetune_members",
    "models": "tl_kit.zoo.catalog",
    "plan": "tl_kit.planning.plan",
    "predict": "tl_kit.inference.predict",
    "predict_stream": "tl_kit.inference.predict",
    "predict_to_file": "tl_kit.inference.predict",
    "push": "tl_kit.exporting.push",
    "report": "tl_kit.report_page.page",
    "report_dict": "tl_kit.diagnosis.examine",
    "resume": "tl_kit.series.resume",
    "resume_fit": "tl_kit.fitting.fit",
    "runtime_report": "tl_kit.machine.machine_report",
    "serve": "tl_kit.serving.server",
    "student_config": "tl_kit.series.distill",
}


share_the_cores()
survive_forks()
prepare_libraries()


def __getattr__(name: str) -> object:
    """Import what needs torch only when it is asked for: the command line's help must not wait for it."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'tl_kit' has no attribute {name!r}")
