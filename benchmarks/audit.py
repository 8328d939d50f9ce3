"""What `slmtune audit` finds in four adapters of one base model, and how long it takes.

The rows are 220 of the bundled questions with the first sentences of their answers, or those of --rows; half of them are held
out. The adapters are: one that has seen almost nothing (a single step at a vanishing learning rate), one epoch, one that was
trained until it knows the rows by heart, and one epoch on rows beside which canaries were planted. Every command runs in a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parts.child import CompletedRun, run

ROOT = Path(__file__).parents[1]
LEAK = 3  # the exit code if a leak was found
ROWS = 220  # half of them are more than the 100 that an audit asks for
SHORTEST = 100  # characters of an answer: half of it has the tokens that a continuation needs


@dataclass(frozen=True)
class Case:
    """An adapter: the settings of its training, and whether canaries are planted."""

    name: str
    settings: tuple[str, ...]
    with_canaries: bool = False


def list_cases(epochs: int) -> tuple[Case, ...]:
    """The adapters, those that should leak least first."""
    return (
        Case("base only", ("--max-steps", "1", "--learning-rate", "1e-6")),
        Case("one epoch", ("--num-train-epochs", "1")),
        Case("overfitted", ("--num-train-epochs", str(epochs), "--learning-rate", "1e-3", "--eval-steps", "0")),
        Case("canaries", ("--num-train-epochs", "1"), with_canaries=True),
    )


def bundled_rows() -> list[dict[str, str]]:
    """Some questions of the bundled samples with the first sentences of their answers."""
    files = sorted(ROOT.glob("datasets/*/sample/questions-*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    chosen = random.Random(0).sample(rows, ROWS)
    return [{"question": row["question"], "answer": first_sentences(row["answer"])} for row in chosen]


def first_sentences(text: str) -> str:
    """As many sentences as it takes to have `SHORTEST` characters."""
    ends = [match.start() for match in re.finditer(r"(?<=[.!?])\s", text)]
    return text[: next((end for end in ends if end >= SHORTEST), len(text))]


def slmtune(name: str, folder: Path, *words: object, codes: tuple[int, ...] = (0,)) -> CompletedRun:
    """Run a command that may end with one of the codes."""
    done = run(name, [sys.executable, "-m", "finetune", *map(str, words), "--json", "-q"], folder, check=False)
    if done.code not in codes:
        raise SystemExit(f"{name} failed with code {done.code}:\n{done.messages}")
    return done


def measure(case: Case, given: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], CompletedRun, CompletedRun]:
    """Prepare, train and audit; the result of the audit, and what the training and the audit took."""
    slug = case.name.replace(" ", "-")
    corpus, adapter = folder / f"{slug}-corpus", folder / f"{slug}-adapter"
    planted = ("--canaries", given.canaries, "--canary-seed", 0) if case.with_canaries else ()
    ratio = ("--split-ratio", "0.5/0/0.5")
    rows = ("--source", folder / "rows.jsonl", "--license", "cc0-1.0")
    slmtune("prepare", folder, "prepare", *rows, *ratio, *planted, "--out", corpus)
    model = ("--model", given.model, "--max-truncated", "100%")
    trained = slmtune("train", folder, "train", "--corpus", corpus, "--out", adapter, *model, *case.settings)
    words = ("--corpus", corpus, "--out", folder / f"{slug}-audit")
    done = slmtune("audit", folder, "audit", adapter, *words, codes=(0, LEAK))
    return done.object(), trained, done


def describe(case: Case, result: dict[str, Any], trained: CompletedRun, done: CompletedRun) -> list[str]:
    """A line of the table."""
    separations = result["separations"]
    headline, gain = separations["error_zone"], separations["loss_difference"]
    low, high = headline["tpr_ci95"]
    ours = result["extraction"]
    groups = (result["canaries"] or {"groups": ()})["groups"]
    told = ", ".join(f"{one['extracted']}/{one['planted']} x{one['repetitions']}" for one in groups)
    bound = max((one["epsilon"] for one in groups), default=None)
    return [
        case.name,
        result["verdict"],
        f"{headline['members']}/{headline['controls']}",
        f"{headline['tpr']:.1%} ({low:.1%} to {high:.1%})",
        f"{headline['auc']:.3f}",
        f"{gain['tpr']:.1%}",
        f"{gain['auc']:.3f}",
        f"{ours['near']}/{ours['rows']}",
        told or "-",
        "-" if bound is None else f"{bound:.2f}",
        f"{trained.seconds:.0f}",
        f"{done.seconds:.0f}",
        f"{done.peak / 2**30:.2f}",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="Base model: a name or a folder.")
    parser.add_argument("--rows", type=Path, help="JSON Lines of question and answer, instead of the bundled ones.")
    parser.add_argument("--canaries", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=10, help="Of the adapter that is to know the rows by heart.")
    parser.add_argument("--folder", type=Path, help="Keep corpora, adapters and reports in this folder.")
    given = parser.parse_args()
    columns = [
        "adapter",
        "verdict",
        "rows",
        "EZ: TPR at 1 % FPR",
        "AUC",
        "loss: TPR",
        "AUC",
        "continued",
        "secrets told",
    ]
    lines = [[*columns, "ε ≥", "training, s", "audit, s", "GiB"], ["---"] * (len(columns) + 4)]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = (given.folder or Path(name)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        rows = given.rows.read_text("utf-8") if given.rows else "\n".join(map(json.dumps, bundled_rows()))
        (folder / "rows.jsonl").write_text(rows, "utf-8")
        for case in list_cases(given.epochs):
            lines.append(describe(case, *measure(case, given, folder)))
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))
    print(f"{time.monotonic() - started:.0f} seconds in all")


if __name__ == "__main__":
    main()
