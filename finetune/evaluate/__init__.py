"""Adapter + Corpus → EvalReport: scores base model and adapter side by side."""

from finetune.evaluate.gate import require_gate
from finetune.evaluate.request import CleanScore, Comparison, EvalRequest, EvalResult, TaskScore
from finetune.evaluate.run import evaluate

__all__ = ["CleanScore", "Comparison", "EvalRequest", "EvalResult", "TaskScore", "evaluate", "require_gate"]
