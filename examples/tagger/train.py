"""Trains the tagger that finds names, places and addresses, and writes it as an ONNX file of 8-bit weights: `make tagger`.

python examples/tagger/train.py [--out DIR] [--rows N] [--seed N] [--base MODEL] [--marked FILE] [--keep DIR]

Everything that it learns from is in this folder. With --marked, it also learns from the even templates of a file of marked
sentences as microsoft/presidio-research writes them (benchmarks/scrub.py measures the odd ones).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from generate import Row, generate, read_templates
from marked import read_marked
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification
from write import write_card, write_tagger

from finetune.models.find import find_base
from finetune.scrub.own_tagger import FOLDER, TOKENIZER
from finetune.scrub.tagger_tokens import ENTITIES, LABELS, TYPES, WINDOW, read_tokens

BATCH, BUCKET = 16, 1024  # rows of a step; rows of which those of similar length are put together
RATE, WARM_UP, DECAY = 3e-4, 0.05, 0.01
REPORT = 20  # steps
REPEAT_MARKED = 2

Encoded = tuple[list[int], list[int], list[int]]  # ids, types and labels of the tokens


def encode(row: Row, tokenizer: Tokenizer) -> Encoded:
    """The first tokens of a row, with the special ones around them, and the number of the label of each."""
    tokens = read_tokens(row.text, tokenizer.encode(row.text, add_special_tokens=False))
    labels = []
    for start, end in tokens.offsets:
        mark = next((mark for mark in row.spans if mark[0] < end and start < mark[1]), None)
        side = 0 if mark is None else 1 + 2 * ENTITIES.index(mark[2]) + (start > mark[0])
        labels.append(side)
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    return [first, *tokens.ids[:WINDOW], last], [0, *tokens.types[:WINDOW], 0], [-100, *labels[:WINDOW], -100]


def batches(rows: Sequence[Encoded], random: Random) -> Iterator[list[Encoded]]:
    """All rows once, those of similar length together, in a random order."""
    order = random.sample(range(len(rows)), len(rows))
    buckets = [sorted(order[at : at + BUCKET], key=lambda n: len(rows[n][0])) for at in range(0, len(order), BUCKET)]
    every = [bucket[at : at + BATCH] for bucket in buckets for at in range(0, len(bucket), BATCH)]
    random.shuffle(every)
    for batch in every:
        yield [rows[number] for number in batch]


def tensors(batch: Sequence[Encoded]) -> tuple[dict[str, Tensor], Tensor]:
    """The inputs of the model, and the labels; (rows, tokens)."""
    length = max(len(ids) for ids, _, _ in batch)
    padded = [
        [[*values, *[pad] * (length - len(values))] for values, pad in zip(row, (0, 0, -100), strict=True)]
        for row in batch
    ]
    ids, types, labels = torch.tensor(padded).unbind(1)
    mask = torch.tensor([[1] * len(row[0]) + [0] * (length - len(row[0])) for row in batch])
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}, labels


def build(folder: Path) -> Any:
    """The base model with a new head and with token types that begin as its first one."""
    model: Any = AutoModelForTokenClassification.from_pretrained(
        folder,
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={name: n for n, name in enumerate(LABELS)},
    )
    embeddings = model.base_model.embeddings
    embeddings.word_embeddings.requires_grad_(False)  # names that no row has stay near those that some have
    if model.config.type_vocab_size == TYPES:  # a tagger that is trained further
        return model
    types = nn.Embedding(TYPES, model.config.hidden_size)
    types.weight.data.copy_(embeddings.token_type_embeddings.weight.data[:1].expand(TYPES, -1))
    embeddings.token_type_embeddings, model.config.type_vocab_size = types, TYPES
    return model


def train(model: Any, rows: Sequence[Encoded], seed: int) -> None:
    """One epoch of AdamW, with a rate that rises and falls linearly."""
    weights = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=DECAY)
    steps = -(-len(rows) // BATCH)
    warm_up = max(1, round(WARM_UP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min((n + 1) / warm_up, (steps - n) / (steps - warm_up + 1))
    )
    model.train()
    started, total = time.monotonic(), 0.0
    for step, batch in enumerate(batches(rows, Random(seed)), 1):
        inputs, labels = tensors(batch)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(**inputs).logits
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total += loss.item()
        if step % REPORT == 0 or step == steps:
            print(
                f"step {step} of {steps}: loss {total / (step % REPORT or REPORT):.4f}, {time.monotonic() - started:.0f} s",
                flush=True,
            )
            total = 0.0


def main() -> None:
    """Generate, train, score and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base", default="minilm-l6")
    parser.add_argument("--validation-rows", type=int, default=400)
    parser.add_argument("--marked", type=Path)
    parser.add_argument(
        "--keep", type=Path, help="also write the weights before they are rounded, to train them further"
    )
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    np.random.seed(options.seed)
    base = find_base(options.base)
    tokenizer = Tokenizer.from_file(str(base.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    marked, held_out = read_marked(options.marked) if options.marked else ([], [])
    rows = [*generate(options.rows, options.seed), *marked * REPEAT_MARKED]
    model, started = build(base.folder), time.process_time()
    train(model, [encode(row, tokenizer) for row in rows], options.seed)
    if options.keep:
        model.save_pretrained(options.keep)
        tokenizer.save(str(options.keep / TOKENIZER))
    facts = {
        "base": base.describe(),
        "rows": options.rows,
        "templates": len(read_templates()),
        "marked": len(marked),
        "seed": options.seed,
        "minutes": round((time.process_time() - started) / 60, 1),
    }
    write_tagger(model, tokenizer, options.out, facts)
    invented = list(generate(options.validation_rows, options.seed + 1, held_out=True))
    print(write_card(options.out, {"invented rows": invented, "rows of the file": held_out}))


if __name__ == "__main__":
    main()
