"""The best SFTTrainer script that its public options allow on a CPU: variant (b) of benchmarks/train_throughput.py.

    python benchmarks/parts/sft_script.py CORPUS MODEL OUT --steps N --batch N --learning-rate X [options]

One pass over the training rows of the corpus. slmtune's renderer tokenises them beforehand, so that the same tokens are
read and carry loss. NF4 base with double quantisation, LoRA on all linear layers, no activation checkpointing, no
evaluation, nothing saved until the end. Options, to search for the best:
  --layout      padded        batches of rows, padded to the longest
                grouped       padded, with rows of similar length together (train_sampling_strategy)
                padding-free  the rows of a batch in one sequence, isolated by a block-diagonal mask (padding_free)
                packed        as many rows as fit into sequences of one length, chosen so that there are N (packing, bfd);
                              a step then has `batch` rows only on average
  --dtype, --autocast, --checkpointing, --attention, --optim, --workers, --compile, --threads
  --lora-dtype  float32, or bfloat16, to which SFTTrainer 1.16 casts LoRA matrices on a quantised base
  --dequantize  unpack the NF4 weights once (transformers' `model.dequantize()`); bitsandbytes unpacks on every pass
Prints one JSON object; `seconds` is the Trainer's `train_runtime`, `tokens` its count of tokens without padding.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from finetune.hub.settings import configure_libraries

configure_libraries()

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, set_seed
from trl import SFTConfig, SFTTrainer, pack_dataset

from finetune.artifacts import Corpus
from finetune.corpus.store import read_split
from finetune.models.chat_template import render
from finetune.models.find import find_base
from finetune.models.tokenizer import load_tokenizer


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
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
    parser.add_argument("--layout", choices=("padded", "grouped", "padding-free", "packed"), default="padding-free")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--lora-dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--autocast", action="store_true", help="bf16=True")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--dequantize", action="store_true")
    parser.add_argument("--compile", action="store_true", help="torch_compile=True")
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--optim", default="adamw_torch_fused")
    parser.add_argument("--workers", type=int, default=0, help="processes that load batches")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def tokenise_rows(arguments: argparse.Namespace, tokenizer: Any) -> Dataset:
    """The training rows with slmtune's labels, truncated as slmtune truncates them."""
    examples = read_split(Corpus.open(arguments.corpus), "train")
    rows = [render(tokenizer, example) for example in examples]
    columns = {
        "input_ids": [list(row.ids[: arguments.max_length]) for row in rows],
        "labels": [row.labels[: arguments.max_length] for row in rows],
    }
    return Dataset.from_dict(columns)


def pack_rows(rows: Dataset, steps: int) -> Dataset:
    """The rows in at most `steps` sequences of one length, as short as possible."""
    lengths = [len(ids) for ids in rows["input_ids"]]
    length = max(max(lengths), sum(lengths) // steps)
    while len(result := pack_dataset(rows, length, "bfd")) > steps:
        length += max(1, length // 100)
    return result


def load(arguments: argparse.Namespace, folder: Path) -> Any:
    """The quantised base model."""
    dtype = getattr(torch, arguments.dtype)
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=quantised,
        dtype=dtype,
        attn_implementation=arguments.attention,
        device_map={"": "cpu"},
    )
    return model.dequantize() if arguments.dequantize else model


def training_arguments(arguments: argparse.Namespace, steps: int) -> SFTConfig:
    """The options as an SFTConfig."""
    return SFTConfig(
        output_dir=str(arguments.out),
        max_steps=steps,
        per_device_train_batch_size=1 if arguments.layout == "packed" else arguments.batch,
        padding_free=arguments.layout in ("padding-free", "packed"),
        train_sampling_strategy="group_by_length" if arguments.layout == "grouped" else "random",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        learning_rate=arguments.learning_rate,
        lr_scheduler_type=arguments.schedule,
        warmup_steps=arguments.warmup,
        gradient_checkpointing=arguments.checkpointing,
        bf16=arguments.autocast,
        use_cpu=True,
        optim=arguments.optim,
        torch_compile=arguments.compile,
        dataloader_num_workers=arguments.workers,
        dataloader_pin_memory=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=arguments.seed,
    )


def main() -> None:
    """Train, save the adapter and print."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    set_seed(arguments.seed)
    base = find_base(arguments.model)
    tokenizer = load_tokenizer(base.folder, base)
    rows = tokenise_rows(arguments, tokenizer)
    supervised = sum(label != -100 for labels in rows["labels"] for label in labels[1:])
    if arguments.layout == "packed":
        rows = pack_rows(rows, arguments.steps)
    steps = min(arguments.steps, len(rows)) if arguments.layout == "packed" else arguments.steps
    lora = LoraConfig(r=arguments.rank, lora_alpha=arguments.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=load(arguments, base.folder),
        args=training_arguments(arguments, steps),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=lora,
    )
    model: Any = trainer.model
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(getattr(torch, arguments.lora_dtype))
    output = trainer.train()
    trainer.save_model(str(arguments.out))
    result = {
        "seconds": output.metrics["train_runtime"],
        "steps": trainer.state.global_step,
        "tokens": int(max(line.get("num_tokens", 0) for line in trainer.state.log_history)),
        "supervised_tokens": supervised,
        "train_loss": output.training_loss,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
