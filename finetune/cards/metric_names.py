"""The metrics of evaluations: their names for people, and which are printed, in what order."""

from __future__ import annotations


class MetricNames(dict[str, str]):
    """Names for people by key; a metric of another program has the name that it has there."""

    def __missing__(self, key: str) -> str:
        """The key itself."""
        return key


METRIC_NAMES = MetricNames(
    {
        "accuracy": "accuracy",
        "weighted_f1": "weighted F1",
        "macro_f1": "macro F1",
        "micro_f1": "micro F1",
        "exact_match": "exact match",
        "answer_f1": "answer F1",
        "chrf": "chrF",
        "bleu": "BLEU",
        "rouge_l": "ROUGE-L",
        "rouge_1": "ROUGE-1",
        "rouge_2": "ROUGE-2",
        "number_match": "number match",
        "edit_similarity": "edit similarity",
        "parses": "parses",
        "token_f1": "token F1",
        "preference_accuracy": "preference accuracy",
        "reward_accuracy": "reward accuracy",
    }
)
PRINTED = (  # columns, as in the terminal
    *("accuracy", "weighted_f1", "micro_f1", "exact_match", "number_match", "answer_f1", "token_f1"),
    *("chrf", "bleu", "rouge_l", "edit_similarity", "parses"),
    *("preference_accuracy", "reward_accuracy"),
    *("acc", "acc_norm"),  # of lm-evaluation-harness
)
