"""Imported once, by the process that all others are forked from: nothing here may start a thread.

``tl_kit`` itself imports next to nothing; named here is what a run needs and takes seconds to import.
"""

import scipy.fft
import scipy.optimize

import tl_kit.cli
import tl_kit.finetuning.finetune
import tl_kit.series.resume

__all__ = ["scipy", "tl_kit"]
