"""QLoRA by SFTTrainer, plain or under Unsloth, on the first GPU: one point of benchmarks/gpu_qlora.py, as a JSON object.

    python benchmarks/parts/gpu_sft.py TOKENS MODEL OUT --steps N --batch N --warm-up N [--checkpointing] [--unsloth]

NF4 with double quantisation, LoRA r=16 alpha=32 on all linear layers, bfloat16, paged 8-bit AdamW: slmtune's settings on
a GPU. TOKENS has the rows as slmtune renders them (exact_rows.py --tokens), so this script needs no slmtune and runs in the
environment of Unsloth too. The --warm-up steps are trained but not timed. Without a GPU, everything runs on the CPU with
AdamW, to try the script out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch

RANK, ALPHA = 16, 32
CONTEXT = 600 * 2**20  # bytes of the CUDA context, as finetune.machine.GPU_CONTEXT counts it
LLAMA_LAYERS = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
]  # Unsloth does not accept all-linear


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--warm-up", type=int, required=True)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--unsloth", action="store_true")
    return parser.parse_args()


def unsloth_model(arguments: argparse.Namespace, folder: Path, length: int) -> Any:
    """The base model with LoRA matrices, built by Unsloth."""
    fast: Any = importlib.import_module("unsloth").FastLanguageModel
    model, _ = fast.from_pretrained(str(folder), max_seq_length=length, dtype=torch.bfloat16, load_in_4bit=True)
    return fast.get_peft_model(
        model,
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0,
        bias="none",
        target_modules=LLAMA_LAYERS,
        use_gradient_checkpointing="unsloth" if arguments.checkpointing else False,
        random_state=42,
    )


def plain_model(folder: Path) -> Any:
    """The quantised base model."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if gpu else torch.float32
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    where = {"": "cuda:0" if gpu else "cpu"}
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantised, dtype=dtype, device_map=where)


def training_arguments(arguments: argparse.Namespace) -> Any:
    """The settings of SFTTrainer, the same for both."""
    from trl import SFTConfig

    gpu = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(arguments.out),
        max_steps=arguments.steps,
        per_device_train_batch_size=arguments.batch,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        learning_rate=2e-4,
        lr_scheduler_type="cosine",
        gradient_checkpointing=arguments.checkpointing and not arguments.unsloth,
        bf16=gpu,
        use_cpu=not gpu,
        optim="paged_adamw_8bit" if gpu else "adamw_torch",
        dataloader_pin_memory=gpu,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def stopwatch(warm_up: int) -> Any:
    """A callback that records when each step ends, from the last warm-up step on."""
    from transformers import TrainerCallback

    class Stopwatch(TrainerCallback):
        times: list[float]

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step >= warm_up:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                self.times.append(time.perf_counter())

    watch = Stopwatch()
    watch.times = []
    return watch


def main() -> None:
    """Train and print."""
    arguments = parse_arguments()
    if arguments.unsloth:
        importlib.import_module("unsloth")  # before transformers and trl, which it patches
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    rows = Dataset.from_list([json.loads(line) for line in arguments.tokens.read_text("utf-8").splitlines()])
    length = len(rows[0]["input_ids"])
    model = unsloth_model(arguments, arguments.model, length) if arguments.unsloth else plain_model(arguments.model)
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    watch = stopwatch(arguments.warm_up)
    trainer = SFTTrainer(
        model=model,
        args=training_arguments(arguments),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=None if arguments.unsloth else lora,
        callbacks=[watch],
    )
    output = trainer.train()
    steps, seconds = len(watch.times) - 1, watch.times[-1] - watch.times[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_reserved() + CONTEXT
    rate = steps * arguments.batch * length / seconds
    print(json.dumps({"tokens_per_second": rate, "peak_memory_bytes": peak, "train_loss": output.training_loss}))


if __name__ == "__main__":
    main()
