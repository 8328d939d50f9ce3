"""What training is worth: small models on public data sets, before and after, with several seeds.

    python benchmarks/domains.py --work DIR [--only tfns,pubmedqa] [--seeds 3] [--json FILE] [--write]
        [--limit N] [--train "OPTIONS"]

Each study is a model on a task of a bundled domain, read from the Hub: TFNS, PubMedQA (the official test ids) and Banking77
with SmolLM2-135M, TFNS with MiniLM. The commands are those that a user would give: `slmtune prepare`, `train` with the
defaults of the domain's recipe and each seed in turn, and one `eval` on the test split, of the base model and the adapters of
all seeds (--vs). Nothing is chosen on the test split.

Results are files in --work: they are not measured again, and a stopped benchmark goes on where it ended. --limit takes fewer
rows per split, to try the script; --train adds options to every training. With either, nothing is written to the page.

Prints a Markdown table. --write also writes docs/results.md (--page: another file); the page names the studies of which
--work has no result.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from parts.domain_runs import STUDIES, current_conditions, measure, read_result
from parts.results_page import page, table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"


def main() -> None:
    """Measure the studies, seed after seed, and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", help=f"comma-separated: {', '.join(study.name for study in STUDIES)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--train", default="", help="further options of `slmtune train`")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else [study.name for study in STUDIES]
    if unknown := set(names) - {study.name for study in STUDIES}:
        parser.error(f"there is no study {', '.join(sorted(unknown))}")
    if arguments.write and (arguments.limit or arguments.train):
        parser.error("--write takes whole measurements, without --limit and --train")
    conditions = current_conditions(arguments.train, arguments.limit)
    for study in (study for study in STUDIES if study.name in names):
        measure(study, arguments.seeds, conditions, arguments.work)
    stored = {study: read_result(study, arguments.work) for study in STUDIES}
    results = {study: result for study, result in stored.items() if result is not None}
    if arguments.json:
        each = [asdict(result) for result in results.values()]
        arguments.json.write_text(json.dumps(each, indent=1) + "\n", "utf-8")
    print(table(results))
    if arguments.write:
        arguments.page.write_text(page(results, [study for study in STUDIES if study not in results]), "utf-8")


if __name__ == "__main__":
    main()
