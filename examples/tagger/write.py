"""Writes a trained tagger as slmtune reads it: an ONNX file of 8-bit weights, its tokenizer, its settings and its card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from generate import Row
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from finetune.artifacts import library_versions, sha256_of, write_json
from finetune.export.onnx.convert import require_onnx, sample_texts, save, trace
from finetune.scrub.figures import CheckedRow, measure
from finetune.scrub.own_tagger import MODEL, SETTINGS, TOKENIZER, OwnTagger
from finetune.scrub.span import Span

BIAS = 1.0  # taken off the logit of "no entity": a name that stays costs more than a word too many
REPORTED = ("NAME", "LOCATION", "ADDRESS")  # organisations are learnt only to be told from these
LIBRARIES = ("torch", "transformers", "tokenizers", "onnx", "onnxruntime")
CARD = """\
# Tagger of names, places and addresses

A token classifier that `slmtune scrub --tagger own` and `slmtune prepare --tagger own` use. It was trained by
`examples/tagger/train.py` of slmtune; the same command with the same libraries and on the same processor gives the same file.

- Base: {base[name]} ({base[license]}); all weights but the word embeddings were trained, for one epoch.
- Data: {rows} invented rows from {templates} templates and lists of names, places, streets, medicines and diseases{marked}.
- Seed {seed}; {minutes} minutes of one core.
- File: {size:.1f} MB, weights in 8 bits.

## Figures

On rows of templates that it did not learn, the invented ones filled from the same lists. They flatter it: on real records
expect less, and measure it there with `slmtune scrub --check 200 FILE`. A span counts as found if all of it is, a mark as right
if it touches a span.

{table}

## Limits

It reads English, and names and addresses of many countries in English text. It knows no context beyond about 100 words. What
it does not find stays in the text. It marks no organisations.
"""


def write_tagger(model: Any, tokenizer: Tokenizer, out: Path, facts: dict[str, Any]) -> None:
    """Write the folder of a tagger, or replace one; `facts` say how it was trained."""
    require_onnx()
    out.mkdir(parents=True, exist_ok=True)
    (out / SETTINGS).unlink(missing_ok=True)  # without it, the folder is no tagger
    tokenizer.save(str(out / TOKENIZER))
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )
    wrapped.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    save(trace(model.float().eval(), sample_texts(wrapped), "int8"), out / MODEL)
    settings = {
        "version": 1,
        "entities": REPORTED,
        "bias": BIAS,
        "files": {name: sha256_of(out / name) for name in (MODEL, TOKENIZER)},
        "libraries": library_versions(LIBRARIES),
        **facts,
    }
    write_json(out / SETTINGS, settings)


def write_card(out: Path, held_out: Mapping[str, Sequence[Row]]) -> str:
    """Measure a tagger on rows that it did not learn, by where they come from, and write its card; the text of the card."""
    facts = json.loads((out / SETTINGS).read_text("utf-8"))
    tagger = OwnTagger(out)
    tables = [_table(name, rows, tagger([row.text for row in rows])) for name, rows in held_out.items() if rows]
    marked = (
        f", and {facts['marked']} marked sentences of a file in the form of presidio-research"
        if facts["marked"]
        else ""
    )
    size = (out / MODEL).stat().st_size / 1e6
    text = CARD.format(**facts | {"marked": marked}, size=size, table="\n\n".join(tables))
    (out / "README.md").write_text(text, "utf-8")
    return text


def _table(name: str, rows: Sequence[Row], found: Sequence[Sequence[Span]]) -> str:
    checked = [
        CheckedRow(
            row.text,
            tuple((span.start, span.end, span.entity) for span in spans),
            tuple(span for span in row.spans if span[2] in REPORTED),
        )
        for row, spans in zip(rows, found, strict=True)
    ]
    figures = measure(checked)
    lines = [
        f"| {kind} | {each.spans} | {_share(each.recall)} | {each.marks} | {_share(each.precision)} |"
        for kind in REPORTED
        if (each := figures.get(kind)) is not None
    ]
    return "\n".join([f"| {len(rows)} {name} | spans | recall | marks | precision |", "|---|---|---|---|---|", *lines])


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
