"""Corpus → Adapter: LoRA or QLoRA on a causal language model."""

from finetune.train.progress import Step
from finetune.train.request import TrainPlan, TrainRequest, TrainResult
from finetune.train.run import plan_training, train

__all__ = ["Step", "TrainPlan", "TrainRequest", "TrainResult", "plan_training", "train"]
