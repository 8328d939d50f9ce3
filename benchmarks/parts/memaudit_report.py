"""What memaudit (0.2.0) says about an adapter of slmtune; run with an interpreter that has memaudit, PEFT and transformers.

`plant` adds memaudit's own canaries to rows of question and answer, to be prepared with --no-dedup, which would drop their
repetitions. `audit` prints its two verdicts about the adapter that was trained on them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from memaudit import generate_canaries, inject
from memaudit.audit import run_audit
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def plant(given: argparse.Namespace) -> None:
    """Write the rows with canaries, and the manifest that tells which were planted."""
    rows = [json.loads(line) for line in given.rows.read_text("utf-8").splitlines()]
    turns = [
        {"messages": [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]}
        for row in rows
    ]
    tokenizer = AutoTokenizer.from_pretrained(given.base)
    canaries = generate_canaries(tokenizer, n=32, n_controls=100, family="structured", repetitions=(1, 4, 16), seed=0)
    planted, manifest = inject(turns, canaries, fmt="messages", seed=0)
    given.out.write_text("".join(json.dumps(row) + "\n" for row in planted), "utf-8")
    given.manifest.write_text(json.dumps(manifest), "utf-8")


def audit(given: argparse.Namespace) -> None:
    """Print what memaudit found."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(given.base), given.adapter)
    with tempfile.TemporaryDirectory() as folder:
        report = run_audit(
            model=model,
            tokenizer=AutoTokenizer.from_pretrained(given.adapter),
            manifest=json.loads(given.manifest.read_text("utf-8")),
            ref="auto",
            output_path=str(Path(folder) / "report.json"),
        )
    membership = {name: value for name, value in report["membership"].items() if not isinstance(value, list | dict)}
    print(json.dumps({"membership": membership, "regurgitation": report["regurgitation"].get("overall")}))


def main() -> None:
    """Plant or audit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, type=Path, help="Folder of the base model.")
    parser.add_argument("--manifest", required=True, type=Path, help="File that tells which canaries were planted.")
    steps = parser.add_subparsers(required=True)
    planting, auditing = steps.add_parser("plant"), steps.add_parser("audit")
    planting.add_argument("rows", type=Path)
    planting.add_argument("out", type=Path)
    planting.set_defaults(step=plant)
    auditing.add_argument("adapter", type=Path)
    auditing.set_defaults(step=audit)
    given = parser.parse_args()
    given.step(given)


if __name__ == "__main__":
    main()
