"""The results of benchmarks/domains.py as Markdown: a table, and docs/results.md with published figures beside it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from parts.domain_runs import Result, Study

HEADER = (
    "| | test rows | base | few-shot base | adapter | accuracy | over the base | over few-shot | minutes |\n"
    "|---|---|---|---|---|---|---|---|---|"
)
FORGETTING = (
    "| | general questions right: base | adapter | drop | perplexity of general prose: base | adapter |\n"
    "|---|---|---|---|---|---|"
)
FORGOTTEN = """## What was forgotten

{table}

Of the adapter of the first seed; an encoder has no general answers to lose. See
[what the adapter has forgotten](guide/evaluation.md).

"""

PAGE = """# Results

Written by `benchmarks/domains.py --write` from its measurements; do not edit.

Small models on public data sets, before and after training with slmtune. The settings are the defaults of the recipes; they
were chosen on parts of the training data, and a test split is used once, at the end.

{table}

Weighted F1, and accuracy in a column of its own: the median of the seeds, with the lowest and the highest. The prompt of the
few-shot base has as many examples from the training split as the table says. An encoder without an adapter has no answers:
beside it stands the most frequent label. Differences are those of the first seed, with 95 % intervals from a paired bootstrap
over the test rows. Minutes are those of `slmtune train`: of the fastest seed, in brackets those of all; most of these runs
shared the machine with other work.

{matches}{missing}{conditions}

{settings}

{forgotten}## Published figures

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


def table(results: Mapping[Study, Result]) -> str:
    """One line per study: the median of its seeds."""
    return "\n".join([HEADER, *(_line(study, result) for study, result in results.items())])


def page(results: Mapping[Study, Result], missing: Sequence[Study]) -> str:
    """The contents of docs/results.md; `missing` are the studies without a result."""
    each = {pair for result in results.values() for pair in result.conditions.versions.items()}
    conditions = f"Measured with {', '.join(f'{name} {number}' for name, number in sorted(each))}."
    matches = "".join(
        f"{study.title.partition(',')[0]}: `prepare` dropped {result.matching_rows} training rows that match test rows.\n"
        for study, result in {study.task: (study, result) for study, result in results.items()}.values()
    )
    absent = f"Not measured here: {'; '.join(study.title for study in missing)}.\n" if missing else ""
    return PAGE.format(
        table=table(results),
        matches=matches,
        missing=absent,
        conditions=conditions,
        settings="\n".join(_settings(study, result) for study, result in results.items()),
        forgotten=FORGOTTEN.format(table="\n".join([FORGETTING, *lines])) if (lines := [*_forgetting(results)]) else "",
        fingpt=FINGPT,
        hub=HUB,
    )


def _line(study: Study, result: Result) -> str:
    figures = result.figures
    metric = figures["metric"]
    few_shot, rival = figures.get("few_shot"), figures.get("comparisons", {}).get("few_shot")
    base = f"{figures['base'][metric]:.3f}{' (most frequent label)' if figures['baseline'] == 'majority' else ''}"
    minutes = [training.seconds / 60 for training in result.trainings]
    cells = [
        study.title,
        f"{figures['n']:,}",
        base,
        f"{few_shot[metric]:.3f} ({figures['shots']} examples)" if few_shot else "–",
        _spread(result.scores(metric)),
        _spread(result.scores("accuracy")),
        _difference(figures),
        _difference(rival) if rival else "–",
        f"{min(minutes):.0f} ({', '.join(f'{each:.0f}' for each in minutes)})",
    ]
    return f"| {' | '.join(cells)} |"


def _settings(study: Study, result: Result) -> str:
    first = result.trainings[0]
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in first.settings.items())
    machines = " and ".join(dict.fromkeys(training.machine for training in result.trainings))
    conditions = f"{settings}; precision {first.precision}; seed {', '.join(map(str, result.seeds))}; on {machines}"
    return f"- {study.title}: {result.rows['train']:,} training rows; {conditions}."


def _forgetting(results: Mapping[Study, Result]) -> list[str]:
    lines = []
    for study, result in results.items():
        if (probe := result.forgetting) is not None:
            low, high = probe["ci95"]
            perplexity = probe["perplexity"]
            lines.append(
                f"| {study.title} | {probe['base']:.3f} | {probe['adapter']:.3f} | "
                f"{probe['drop']:+.3f} ({low:+.3f} to {high:+.3f}) | {perplexity['base']:.1f} | {perplexity['adapter']:.1f} |"
            )
    return lines


def _spread(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.3f}" + (f" ({low:.3f}–{high:.3f})" if len(values) > 1 else "")


def _difference(comparison: Mapping[str, Any]) -> str:
    low, high = comparison["ci95"]
    return f"{comparison['delta']:+.3f} ({low:+.3f} to {high:+.3f})"
