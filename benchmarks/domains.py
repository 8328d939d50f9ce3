"""What training is worth: small models on public data sets, before and after, with several seeds.

    python benchmarks/domains.py --work DIR [--only tfns,pubmedqa] [--seeds 3] [--write]
        [--limit N] [--train "OPTIONS"] [--results DIR] [--page FILE]

Each study is a model on a task of a bundled domain, read from the Hub: TFNS, PubMedQA (the official test ids) and Banking77
with SmolLM2-135M, TFNS with MiniLM. The commands are those that a user would give: `slmtune prepare`, `train` with the
defaults of the domain's recipe and each seed in turn, and `eval` of each adapter on the test split. Nothing is chosen on the
test split.

Corpora and adapters lie in --work; the figures lie in --results, a file per study, as a rule in benchmarks/results, which is
part of the repository. A seed whose figures are there is not measured again, and a stopped benchmark goes on where it ended.
--limit takes fewer rows per split, to try the script; --train adds options to every training. With either, results go to
--work and nothing is written to the page.

Prints a Markdown table. --write also writes docs/results.md (--page: another file), which names the studies without a result.
With --seeds 0, nothing is measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from parts.domain_runs import STUDIES, current_conditions, measure, read_result
from parts.results_page import page, table

RESULTS = Path(__file__).resolve().parent / "results"
PAGE = RESULTS.parents[1] / "docs" / "results.md"


def main() -> None:
    """Measure the studies, seed after seed, and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", help=f"comma-separated: {', '.join(study.name for study in STUDIES)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--train", default="", help="further options of `slmtune train`")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else [study.name for study in STUDIES]
    if unknown := set(names) - {study.name for study in STUDIES}:
        parser.error(f"there is no study {', '.join(sorted(unknown))}")
    trial = arguments.train or arguments.limit
    if arguments.write and trial:
        parser.error("--write takes whole measurements, without --limit and --train")
    folder = arguments.results or (arguments.work if trial else RESULTS)
    conditions = current_conditions(arguments.train, arguments.limit)
    for study in (study for study in STUDIES if study.name in names and arguments.seeds):
        measure(study, arguments.seeds, conditions, arguments.work, folder)
    stored = {study: read_result(study, folder) for study in STUDIES}
    results = {study: result for study, result in stored.items() if result is not None}
    print(table(results))
    if arguments.write:
        arguments.page.write_text(page(results, [study for study in STUDIES if study not in results]), "utf-8")


if __name__ == "__main__":
    main()
