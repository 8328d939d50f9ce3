"""Loss of adapters from any trainer on the held-out rows of a corpus: one JSON object, name -> nats per token.

    python benchmarks/parts/held_out_loss.py CORPUS MODEL [NAME=ADAPTER ...]

Every adapter is attached to the same NF4 base model in float32. slmtune renders the rows; each has its own forward pass,
without padding. The loss is the mean negative log-likelihood of all answer tokens. `base` is the model without an adapter.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from finetune.hub.settings import configure_libraries

configure_libraries()

import torch
from torch import nn

from finetune.artifacts import Corpus
from finetune.corpus.store import read_split
from finetune.models.chat_template import Rendering, render
from finetune.models.find import find_base
from finetune.models.load import attach_adapter, load_base
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe


@torch.no_grad()
def loss(model: Any, rows: list[Rendering]) -> float:
    """Mean negative log-likelihood of the supervised tokens, in nats."""
    model.eval()
    total, count = 0.0, 0
    for row in rows:
        labels = torch.tensor(row.labels)[1:]
        logits = model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0, :-1].float()
        total += float(nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
        count += int((labels != -100).sum())
    return total / count


def main() -> None:
    """Evaluate and print."""
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    base = find_base(sys.argv[2])
    tokenizer = load_tokenizer(base.folder, base)
    rows = [render(tokenizer, example) for example in read_split(Corpus.open(Path(sys.argv[1])), "validation")]
    model: Any = load_base(base.folder, AdapterRecipe(compute_dtype="float32"))
    losses = {"base": loss(model, rows)}
    for argument in sys.argv[3:]:
        name, _, folder = argument.partition("=")
        model = attach_adapter(model, Path(folder), name)
        model.set_adapter(name)
        losses[name] = loss(model, rows)
    print(json.dumps(losses))


if __name__ == "__main__":
    main()
