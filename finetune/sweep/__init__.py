"""Corpus → the best recipe: trains with different settings and compares the runs on the validation split."""

from finetune.sweep.request import SweepPlan, SweepRequest, SweepResult, TrialRecord
from finetune.sweep.run import plan_sweep, sweep

__all__ = ["SweepPlan", "SweepRequest", "SweepResult", "TrialRecord", "plan_sweep", "sweep"]
