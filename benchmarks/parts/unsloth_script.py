"""Unsloth as its documentation uses it, on a CPU: variant (d) of benchmarks/train_throughput.py.

    PYTHON benchmarks/parts/unsloth_script.py ROWS MODEL OUT --steps N --batch N --learning-rate X [options]

PYTHON is that of an environment with Unsloth, which has no slmtune; ROWS are tokenised, {"input_ids": …, "labels": …} per
line. 4-bit base, LoRA on all linear layers and no dropout as in Unsloth's notebooks, with its defaults for everything that
is not given here. One pass over the rows, nothing saved until the end.
Prints one JSON object; `seconds` is the Trainer's `train_runtime`, `tokens` counts the rows without padding.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from pathlib import Path
from typing import Any

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--schedule", default="cosine")
    parser.add_argument("--warmup", type=float, default=0.05, help="share of the steps")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--checkpointing", choices=("unsloth", "on", "off"), default="off", help="as the others: off")
    return parser.parse_args()


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, save the adapter, and return what is printed."""
    from unsloth import FastLanguageModel  # before the libraries that it changes  # isort: skip
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq
    from trl import SFTConfig, SFTTrainer

    rows = [json.loads(line) for line in arguments.rows.read_text("utf-8").splitlines()]
    model, tokenizer = FastLanguageModel.from_pretrained(
        arguments.model, max_seq_length=arguments.max_length, load_in_4bit=True
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=arguments.rank,
        lora_alpha=arguments.alpha,
        lora_dropout=0,
        target_modules=LINEAR,
        use_gradient_checkpointing={"unsloth": "unsloth", "on": True, "off": False}[arguments.checkpointing],
        random_state=arguments.seed,
    )
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        args=SFTConfig(
            output_dir=str(arguments.out),
            max_steps=arguments.steps,
            per_device_train_batch_size=arguments.batch,
            gradient_accumulation_steps=1,
            dataset_kwargs={"skip_prepare_dataset": True},
            learning_rate=arguments.learning_rate,
            lr_scheduler_type=arguments.schedule,
            warmup_steps=math.ceil(arguments.warmup * arguments.steps),
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=arguments.seed,
        ),
    )
    output = trainer.train()
    trainer.save_model(str(arguments.out))
    return {
        "seconds": output.metrics["train_runtime"],
        "steps": trainer.state.global_step,
        "tokens": sum(len(row["input_ids"]) for row in rows),
        "supervised_tokens": sum(label != -100 for row in rows for label in row["labels"][1:]),
        "train_loss": output.training_loss,
    }


def main() -> None:
    """Train and print; what Unsloth prints goes to stderr."""
    arguments = parse_arguments()
    with contextlib.redirect_stdout(sys.stderr):
        result = train(arguments)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
