"""Build the index of an eval set, by which `slmtune prepare` finds rows that contain its items: hashes, and no text.

python examples/index_eval_set.py hf://datasets/zeroshot/twitter-financial-news-sentiment:validation \
    --name tfns --question text --output datasets/finance/evals/tfns.npz
python examples/index_eval_set.py hf://datasets/qiaojin/PubMedQA:pqa_labeled \
    --name pubmedqa --id pubid --ids datasets/health/pubmedqa-test-pmids.txt \
    --context context.contexts --answer long_answer --output datasets/health/evals/pubmedqa.npz

Write a column inside a struct with a dot. Then name the file in the recipe, under `evals`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

from finetune.prepare.decontaminate.build import build_index
from finetune.prepare.decontaminate.eval_index import EvalItem
from finetune.prepare.formats.files import BadRow, DataFile
from finetune.prepare.formats.readers import read_rows
from finetune.prepare.rows.columns import map_columns, optional_text
from finetune.prepare.sources.remote import fetch


def items(files: list[Path], columns: Mapping[str, str], ids: frozenset[str] = frozenset()) -> Iterator[EvalItem]:
    """The items of an eval set, or only those with `ids`; without a column for ids, they are numbered from 0."""
    number = 0
    for path in files:
        for row in read_rows(DataFile(path, path.name, path.name)):
            if isinstance(row, BadRow):
                raise SystemExit(f"{path.name}:{row.line}: {row.problem}")
            values = map_columns(row.values, columns)
            name = optional_text(values, "id") if "id" in columns else str(number)
            number += 1
            if not ids or name in ids:
                texts = {
                    field: optional_text(values, field)
                    for field in ("question", "answer", "context")
                    if field in columns
                }
                yield EvalItem(name, **texts)


def main() -> None:
    """Read, index and write, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="A file of rows, or hf://datasets/ID[@REVISION][:CONFIG][:SPLIT]")
    parser.add_argument("--name", required=True, help="Name of the set: the id of its entry in the recipe")
    parser.add_argument("--question", default="question", help="Column")
    for field in ("answer", "context", "id"):
        parser.add_argument(f"--{field}", help="Column, if there is one")
    parser.add_argument("--ids", type=Path, help="File with the ids of the items to take")
    parser.add_argument("--output", type=Path, required=True, help="The .npz file to write")
    arguments = parser.parse_args()
    data = fetch(arguments.source) if arguments.source.startswith("hf://") else None
    files = [file.path for file in data.files] if data else [Path(arguments.source)]
    named = {field: getattr(arguments, field) for field in ("question", "answer", "context", "id")}
    ids = frozenset(arguments.ids.read_text("utf-8").split()) if arguments.ids else frozenset()
    index = build_index(arguments.name, items(files, {key: column for key, column in named.items() if column}, ids))
    if ids and len(index.ids) != len(ids):
        raise SystemExit(f"{arguments.source} has {len(index.ids)} of the {len(ids)} ids")
    index.save(arguments.output)
    size, items_with_grams = arguments.output.stat().st_size, len(set(index.items.tolist()))
    print(
        f"{len(index.ids):,} items, {items_with_grams:,} of them with a gram, {len(index.keys):,} grams, {size:,} bytes"
    )
    print(f"revision {data.revision if data else 'unknown'}, licence {(data and data.license) or 'unknown'}")


if __name__ == "__main__":
    main()
