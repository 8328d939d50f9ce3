"""A model of random weights in the shape of a known one, and rows of one length for it, without any download.

    python benchmarks/parts/random_model.py model SHAPE FOLDER
    python benchmarks/parts/random_model.py rows MODEL CORPUS --rows N --length TOKENS [--supervised 0.5] [--seed N]

`model` writes bfloat16 weights and a tokenizer whose every word is a token. `rows` writes a corpus of conversations of
exactly so many tokens, of random words, of which the answer holds the given share. Shapes are those of the models'
published config.json; where a model's own context is shorter than 8,192 tokens it is raised, which costs nothing.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from finetune.hub.settings import settle

settle()

import torch  # noqa: E402
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast  # noqa: E402

from finetune.corpus.store import write_corpus  # noqa: E402
from finetune.models.chat_template import render  # noqa: E402
from finetune.models.find import find_base  # noqa: E402
from finetune.models.load import load_tokenizer  # noqa: E402
from finetune.models.presets import PRESETS  # noqa: E402
from finetune.plan.published import PUBLISHED  # noqa: E402
from finetune.records import Example, Message  # noqa: E402

PAD, START, END = "<|pad|>", "<|start|>", "<|end|>"
WORDS = 200  # enough for every vocabulary below
FRAME = 6  # tokens of a conversation that are no words: START user … END START assistant … END
TEMPLATE = (
    "{% for turn in messages %}{{ '<|start|>' + turn['role'] + '\n' + turn['content'] + '<|end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)


TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA_2 = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
SHAPES: dict[str, dict[str, Any]] = {
    **PUBLISHED,
    "tiny": {"model_type": "llama", **TINY, "num_key_value_heads": 2, "vocab_size": 256},
    "llama-2-7b": {"model_type": "llama", **LLAMA_2, "num_key_value_heads": 32, "vocab_size": 32000},
}
CONTEXT = {"max_position_embeddings": 8192, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def write_model(shape: str, folder: Path) -> dict[str, Any]:
    """Random weights, made where there is most memory for them, and the tokenizer.

    Raises:
        SystemExit: the shape has not as many parameters as the model that it is named after.
    """
    config = AutoConfig.for_model(**SHAPES[shape], **CONTEXT, architectures=None)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if shape in PRESETS and PRESETS[shape].parameters != parameters:
        raise SystemExit(f"{shape} has {PRESETS[shape].parameters:,} parameters, and this configuration {parameters:,}")
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return {"shape": shape, "parameters": parameters}


def tokenizer() -> PreTrainedTokenizerFast:
    """Every word between blanks is a token, also where transformers puts an architecture's own tokenizer in its place.

    It does so for Qwen2, whatever tokenizer.json says; added tokens are what such a tokenizer keeps.
    """
    words = [PAD, START, END, "<unk>", "user", "assistant", *(f"w{number}" for number in range(WORDS))]
    level = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    level.add_tokens([AddedToken(word, rstrip=True, normalized=False) for word in words])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=level, bos_token=START, eos_token=END, pad_token=PAD, unk_token="<unk>"
    )
    fast.chat_template = TEMPLATE
    return fast


def write_rows(model: str, corpus: Path, rows: int, length: int, supervised: float, seed: int) -> dict[str, int]:
    """Conversations of one question and one answer."""
    draw = random.Random(seed)
    answer = max(1, round((length - FRAME) * supervised))

    def words(count: int) -> str:
        return " ".join(f"w{draw.randrange(WORDS)}" for _ in range(count))

    examples = []
    for number in range(rows):
        turns = (Message("user", words(length - FRAME - answer)), Message("assistant", words(answer)))
        examples.append(Example(str(number), turns, "chat"))
    base = find_base(model)
    words_to_ids = load_tokenizer(base.folder, base)
    rendered = [render(words_to_ids, example) for example in examples]
    assert all(len(row.ids) == length for row in rendered), "a row has another length"
    write_corpus(corpus, {"train": examples})
    return {"rows": rows, "supervised": sum(rendered[0].supervised)}


def main() -> None:
    """Write what is asked for, and print what it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    model = commands.add_parser("model")
    model.add_argument("shape", choices=SHAPES)
    model.add_argument("folder", type=Path)
    rows = commands.add_parser("rows")
    rows.add_argument("model")
    rows.add_argument("corpus", type=Path)
    rows.add_argument("--rows", type=int, required=True)
    rows.add_argument("--length", type=int, required=True)
    rows.add_argument("--supervised", type=float, default=0.5)
    rows.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.what == "model":
        print(json.dumps(write_model(given.shape, given.folder)))
    else:
        print(json.dumps(write_rows(given.model, given.corpus, given.rows, given.length, given.supervised, given.seed)))


if __name__ == "__main__":
    main()
