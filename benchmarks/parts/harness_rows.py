"""Labels of rows by lm-evaluation-harness: harness_rows.py ROWS MODEL --batch 16|auto; ROWS is from eval_rows.py.

A `multiple_choice` task with the same prompts and answers, and the model type `hf` in float32, as in its documentation.
Prints {"seconds": of the evaluation without loading the model, "picks": numbers of the choices, "logprobs": of all choices}.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

TASK = "rows"


def main() -> None:
    """Evaluate the task and print the picks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("model")
    parser.add_argument("--batch", required=True)
    arguments = parser.parse_args()
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=arguments.model, dtype="float32", device="cpu", batch_size=arguments.batch)
    task: dict[str, Any] = {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(arguments.rows)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{answers}}",
        "doc_to_target": "target",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    started = time.perf_counter()
    results = simple_evaluate(model=model, tasks=[task], log_samples=True, bootstrap_iters=0)
    seconds = time.perf_counter() - started
    samples = sorted(results["samples"][TASK], key=lambda sample: int(sample["doc_id"]))
    logprobs = [[float(score) for score, _ in sample["filtered_resps"]] for sample in samples]
    picks = [row.index(max(row)) for row in logprobs]
    print(json.dumps({"seconds": seconds, "picks": picks, "logprobs": logprobs}))


if __name__ == "__main__":
    main()
