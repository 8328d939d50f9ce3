"""Adapter → Model: folds an adapter into its base model, and proves that the result is the adapter."""

from finetune.merge.request import Candidate, Distance, MergeRequest, MergeResult
from finetune.merge.run import merge_adapter

__all__ = ["Candidate", "Distance", "MergeRequest", "MergeResult", "merge_adapter"]
