"""The results of benchmarks/domains.py as Markdown: a table, and docs/results.md with published figures beside it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from parts.domain_runs import Run, Study

HEADER = (
    "| | test rows | base | few-shot base | adapter | accuracy | over the base | over few-shot | minutes |\n"
    "|---|---|---|---|---|---|---|---|---|"
)

PAGE = """# Results

Written by `benchmarks/domains.py --write` from its measurements; do not edit.

Small models on public data sets, before and after training with slmtune. The settings are the defaults of the recipes; they
were chosen on parts of the training data, and a test split is used once, at the end.

{table}

Weighted F1, and accuracy in a column of its own: the median of the seeds, with the lowest and the highest. The prompt of the
few-shot base has as many examples from the training split as the table says. An encoder without an adapter has no answers:
beside it stands the most frequent label. Differences are those of the median seed, with 95 % intervals from a paired bootstrap
over the test rows. Minutes are those of `slmtune train` and, after the plus sign, of `slmtune eval`.

{clean}{conditions}

## Published figures

For orientation: other models, other settings, and not always the same rows.

| data set | system | score | source |
|---|---|---|---|
| TFNS | FinGPT, Llama-2-7B, QLoRA in 4 bits | .828 weighted F1 | [FinGPT's README]({fingpt}) |
| TFNS | DistilBERT (66M), all weights trained | .858 F1 | [model card]({hub}jtatman/finetuning-twitter-sentiment-distilbert) |
| TFNS | FinGPT, LoRA in 8 bits | .879 weighted F1 | FinGPT's README |
| TFNS | twitter-roberta-base (125M), all weights trained | .888 accuracy | model card of arwisyah on the Hub |
| TFNS | FinGPT v3.3, Llama-2-13B | .903 weighted F1 | FinGPT's README |
| Banking77 | Llama-3.2-1B, QLoRA, constrained decoding | .903 accuracy | [model card]({hub}rajo0113/banking77-llama-1b-lora) |
| Banking77 | Qwen3-8B, QLoRA | .9185 accuracy | [model card]({hub}minhthien/banking-intent-unsloth) |
| PubMedQA | BioBERT, multi-phase | .681 accuracy | [Jin et al., 2019](https://arxiv.org/abs/1909.06146) |
| PubMedQA | a human | .780 accuracy | Jin et al., 2019 |
"""
FINGPT, HUB = "https://github.com/AI4Finance-Foundation/FinGPT", "https://huggingface.co/"


def table(results: Mapping[Study, Sequence[Run]]) -> str:
    """One line per study: the median of its seeds."""
    return "\n".join([HEADER, *(_line(study, runs) for study, runs in results.items() if runs)])


def page(results: Mapping[Study, Sequence[Run]]) -> str:
    """The contents of docs/results.md."""
    runs = [run for each in results.values() for run in each]
    machines = sorted({run.conditions.machine for run in runs})
    versions = sorted({f"{name} {number}" for run in runs for name, number in run.conditions.versions.items()})
    lowest, highest = min(run.seed for run in runs), max(run.seed for run in runs)
    conditions = f"Measured on {'; '.join(machines)}, with {', '.join(versions)}; seeds {lowest} to {highest}."
    return PAGE.format(table=table(results), clean=_clean(results), conditions=conditions, fingpt=FINGPT, hub=HUB)


def _line(study: Study, runs: Sequence[Run]) -> str:
    middle = _middle(runs)
    figures = middle.figures
    metric = figures["metric"]
    few_shot, rival = figures.get("few_shot"), figures.get("comparisons", {}).get("few_shot")
    base = f"{figures['base'][metric]:.3f}{' (most frequent label)' if figures['baseline'] == 'majority' else ''}"
    minutes = [statistics.median(getattr(run, name) for run in runs) / 60 for name in ("train_seconds", "eval_seconds")]
    cells = [
        study.title,
        f"{figures['n']:,}",
        base,
        f"{few_shot[metric]:.3f} ({figures['shots']} examples)" if few_shot else "–",
        _spread([run.figures["adapter"][metric] for run in runs]),
        _spread([run.figures["adapter"]["accuracy"] for run in runs]),
        _difference(figures),
        _difference(rival) if rival else "–",
        f"{minutes[0]:.0f} + {minutes[1]:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _middle(runs: Sequence[Run]) -> Run:
    """The run with the median score; of an even number, the lower one in the middle."""
    ordered = sorted(runs, key=lambda run: float(run.figures["adapter"][run.figures["metric"]]))
    return ordered[(len(ordered) - 1) // 2]


def _spread(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.3f}" + (f" ({low:.3f}–{high:.3f})" if len(values) > 1 else "")


def _difference(comparison: Mapping[str, Any]) -> str:
    low, high = comparison["ci95"]
    return f"{comparison['delta']:+.3f} ({low:+.3f} to {high:+.3f})"


def _clean(results: Mapping[Study, Sequence[Run]]) -> str:
    """A sentence on test rows that match training rows, where an evaluation tells of some."""
    sentences = []
    for study, runs in results.items():
        clean = _middle(runs).figures.get("clean") if runs else None
        if clean:
            score = clean["adapter"][_middle(runs).figures["metric"]]
            sentences.append(f"{study.title}: {score:.3f} on the {clean['n']:,} test rows that match no training row.")
    return "".join(f"{sentence}\n" for sentence in sentences) + ("\n" if sentences else "")
