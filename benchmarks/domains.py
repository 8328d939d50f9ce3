"""What training is worth: small models on public data sets, before and after, with several seeds.

    python benchmarks/domains.py --work DIR [--only tfns,pubmedqa] [--seeds 3] [--json FILE] [--write]
        [--limit N] [--train "OPTIONS"]

Each study is a model on a task of a bundled domain, read from the Hub: TFNS, PubMedQA (the official test ids) and Banking77
with SmolLM2-135M, TFNS with MiniLM. The commands are those that a user would give: `slmtune prepare`, `train` with the
defaults of the domain's recipe and each seed in turn, and `eval` on the test split. Nothing is chosen on the test split.

Results are files in --work: they are not measured again, and a stopped benchmark goes on where it ended. --limit takes fewer
rows per split, to try the script; --train adds options to every training. With either, nothing is written to the page.

Prints a Markdown table. --write also writes docs/results.md (--page: another file), if there is a result of every study.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from parts.domain_runs import STUDIES, Run, Study, current_conditions, measure
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
    if arguments.write and (arguments.limit or arguments.train or len(set(names)) < len(STUDIES)):
        parser.error("--write takes results of every study, without --only, --limit and --train")
    conditions = current_conditions(arguments.train, arguments.limit)
    results: dict[Study, list[Run]] = {study: [] for study in STUDIES if study.name in names}
    for seed in range(arguments.seeds):
        for study, runs in results.items():
            runs.append(measure(study, seed, conditions, arguments.work))
            if arguments.json:
                each = [asdict(run) for many in results.values() for run in many]
                arguments.json.write_text(json.dumps(each, indent=1) + "\n", "utf-8")
    print(table(results))
    if arguments.write:
        arguments.page.write_text(page(results), "utf-8")


if __name__ == "__main__":
    main()
