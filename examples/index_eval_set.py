"""Make the index of an evaluation set, so that `slmtune prepare` finds rows that give it away: hashes, and no text.

python examples/index_eval_set.py hf://datasets/zeroshot/twitter-financial-news-sentiment:validation \
    --name tfns --question text --output datasets/finance/evals/tfns.npz
python examples/index_eval_set.py hf://datasets/qiaojin/PubMedQA:pqa_labeled \
    --name pubmedqa --id pubid --ids datasets/health/pubmedqa-test-pmids.txt \
    --context context.contexts --answer long_answer --output datasets/health/evals/pubmedqa.npz

A column inside a struct is written with a dot. Then name the file in the recipe, under `evals`.
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


def items(files: list[Path], columns: Mapping[str, str], wanted: frozenset[str] = frozenset()) -> Iterator[EvalItem]:
    """The items of an eval set; without a column for ids they are counted from 0. `wanted`: only those ids."""
    number = 0
    for path in files:
        for row in read_rows(DataFile(path, path.name, path.name)):
            if isinstance(row, BadRow):
                raise SystemExit(f"{path.name}:{row.line}: {row.problem}")
            values = map_columns(row.values, columns)
            name = optional_text(values, "id") if "id" in columns else str(number)
            number += 1
            if not wanted or name in wanted:
                texts = {
                    field: optional_text(values, field)
                    for field in ("question", "answer", "context")
                    if field in columns
                }
                yield EvalItem(name, **texts)


def main() -> None:
    """Read, index, write, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="A file of rows, or hf://datasets/ID[@REVISION][:CONFIG][:SPLIT]")
    parser.add_argument("--name", required=True, help="What the set is called; the id of its entry in the recipe")
    parser.add_argument("--question", default="question", help="Column")
    for field in ("answer", "context", "id"):
        parser.add_argument(f"--{field}", help="Column, if there is one")
    parser.add_argument("--ids", type=Path, help="File with the ids of the items to take")
    parser.add_argument("--output", type=Path, required=True, help="The .npz file to write")
    given = parser.parse_args()
    data = fetch(given.source) if given.source.startswith("hf://") else None
    files = [file.path for file in data.files] if data else [Path(given.source)]
    named = {field: getattr(given, field) for field in ("question", "answer", "context", "id")}
    wanted = frozenset(given.ids.read_text("utf-8").split()) if given.ids else frozenset()
    index = build_index(given.name, items(files, {key: column for key, column in named.items() if column}, wanted))
    if wanted and len(index.ids) != len(wanted):
        raise SystemExit(f"{given.source} has {len(index.ids)} of the {len(wanted)} ids")
    index.save(given.output)
    size, found = given.output.stat().st_size, len(set(index.items.tolist()))
    print(f"{len(index.ids):,} items, {found:,} of them with a gram, {len(index.keys):,} grams, {size:,} bytes")
    print(f"revision {data.revision if data else 'unknown'}, licence {(data and data.license) or 'unknown'}")


if __name__ == "__main__":
    main()
