"""Model cards: the page of an adapter, a merged model or an export on the Hub, from its manifest and the evaluation."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from finetune.artifacts import Adapter, EvalReport, Export, Model
from finetune.cards.export_facts import ExportFacts
from finetune.cards.model_facts import Subject, cell
from finetune.cards.templating import ENVIRONMENT
from finetune.cards.verdict import RIVALS, verdict
from finetune.recipe import domain_names, load_domain

PLACEHOLDER = "NAMESPACE/NAME"  # until a push determines the repository
CAUTION = "Not tested for any use that matters: check what it says before you rely on it."
HUB_METRICS = {  # our name -> the Hub's metric id, name of the variant
    "accuracy": ("accuracy", "Accuracy"),
    "weighted_f1": ("f1", "F1 (weighted)"),
    "macro_f1": ("f1", "F1 (macro)"),
    "micro_f1": ("f1", "F1 (micro)"),
    "exact_match": ("exact_match", "Exact match"),
    "answer_f1": ("f1", "F1 (answer)"),
    "token_f1": ("f1", "F1 (over words)"),
    "chrf": ("chrf", "chrF (mean of rows)"),
    "bleu": ("bleu", "BLEU"),
    "rouge_l": ("rouge", "ROUGE-L"),
    "rouge_1": ("rouge", "ROUGE-1"),
    "rouge_2": ("rouge", "ROUGE-2"),
    "number_match": ("exact_match", "Exact match of numbers"),
    "edit_similarity": ("edit_similarity", "Edit similarity"),
    "parses": ("parses", "Share that parses"),
    "preference_accuracy": ("accuracy", "Accuracy of preference"),
}
SEAL = re.compile(r"\n<!-- slmtune wrote this card: ([0-9a-f]{64}) -->\n$")

log = logging.getLogger(__name__)


def model_card(
    artifact: Adapter | Model | Export,
    report: EvalReport | None,
    *,
    repo_id: str | None = None,
    is_public: Callable[[str], bool] = lambda _: True,
) -> str:
    """The README.md of an adapter, of the model that it was merged into, or of an export of either: YAML metadata, then text.

    The same arguments give the same bytes. `is_public` says which Hub data sets of the corpus may be named.
    """
    subject, scores = Subject(artifact), _read_report(report)
    card = f"---\n{_metadata(subject, scores, is_public)}\n---\n\n{_body(subject, scores, repo_id or PLACEHOLDER)}"
    return f"{card}\n<!-- slmtune wrote this card: {_digest(card)} -->\n"


def is_untouched(card: str) -> bool:
    """Whether slmtune wrote this card and nobody has edited it since: only then may it be replaced."""
    seal = SEAL.search(card)
    return seal is not None and _digest(card[: seal.start()]) == seal[1]


def _digest(card: str) -> str:
    return hashlib.sha256(card.encode()).hexdigest()


def _read_report(report: EvalReport | None) -> dict[str, Any]:
    if report is None:
        return {"tasks": {}}
    scores: dict[str, Any] = json.loads((report.path / "report.json").read_text("utf-8"))
    return scores


def _metadata(subject: Subject, scores: Mapping[str, Any], is_public: Callable[[str], bool]) -> str:
    """The YAML front matter, without the lines of dashes."""
    base, form = subject.base["name"], subject.form
    results = [] if subject.is_export else _eval_results(subject, scores)  # its files are not those that were scored
    if subject.license is None:
        log.warning("The licence of %s is unknown, and the card says so. Find out before you share it.", base)
    data = ModelCardData(
        language="en",
        license=subject.license or "other",
        license_name=None if subject.license else "unknown",
        library_name=form.library,
        pipeline_tag=subject.pipeline_tag,
        base_model=base if subject.base_is_on_hub else None,
        base_model_relation=form.relation if subject.base_is_on_hub else None,
        datasets=[name for name in subject.hub_datasets if is_public(name)] or None,
        tags=[
            "slmtune",
            *form.tags,
            *([] if subject.is_base else ["lora"]),
            *(["qlora"] if subject.is_quantized else []),
            *(["dpo"] if subject.recipe.get("method") == "dpo" else []),
            *([] if subject.is_base else [subject.domain]),
        ],
        metrics=sorted({result.metric_type for result in results}) or None,
    )
    if results:
        data["model_name"] = f"{subject.domain}-{subject.artifact.kind}"
        data["eval_results"] = results
    return data.to_yaml(line_break="\n").strip()


def _eval_results(subject: Subject, scores: Mapping[str, Any]) -> list[EvalResult]:
    """The adapter's scores in the Hub's format."""
    return [
        EvalResult(
            task_type=subject.pipeline_tag,
            task_name=name,
            dataset_type=subject.domain,
            dataset_name=f"slmtune {subject.domain} corpus, held-out rows",
            dataset_config=name,
            dataset_split=scores.get("split"),
            metric_type=HUB_METRICS[metric][0],
            metric_name=HUB_METRICS[metric][1],
            metric_value=round(value, 4),
        )
        for name, task in scores["tasks"].items()
        for metric, value in task["adapter"].items()
        if metric in HUB_METRICS and value is not None
    ]


def _body(subject: Subject, scores: Mapping[str, Any], repo_id: str) -> str:
    is_bundled = subject.domain in domain_names()
    export = ExportFacts(subject.artifact) if isinstance(subject.artifact, Export) else None
    name = "base_export_card" if subject.is_base else "export_card" if export else "model_card"
    return ENVIRONMENT.get_template(f"{name}.md.jinja").render(
        subject=subject,
        export=export,
        kind=subject.artifact.kind,
        base=subject.base,
        base_package=subject.base["source"] if "==" in subject.base["source"] else None,
        before="export" if export else "merge" if subject.is_merged else None,
        method="QLoRA" if subject.is_quantized else "LoRA",
        has_preferences=subject.recipe.get("method") == "dpo",
        version=subject.artifact.manifest.get("slmtune_version"),
        caution=load_domain(subject.domain).recipe.caution if is_bundled else CAUTION,
        eval_command=f"slmtune eval --domain {subject.domain}" if is_bundled else "slmtune eval",
        settings=[[name, cell(value)] for name, value in subject.settings()],
        sources=[[cell(source.get(key) or "-") for key in ("id", "license")] for source in subject.sources],
        baselines=sorted({RIVALS[task.get("baseline", "base")] for task in scores["tasks"].values()}),
        results=[row for name, task in scores["tasks"].items() for row in _result_rows(name, task)],
        verdicts={cell(name): cell(verdict(task)) for name, task in scores["tasks"].items()},
        repo_id=repo_id,
        folder=repo_id.split("/")[-1],
    )


def _result_rows(name: str, task: Mapping[str, Any]) -> list[list[str]]:
    """The rows of the results table for a task, one per score; the interval and p belong to the headline metric."""
    rows, (low, high) = [], task["ci95"]
    for metric, base in task["base"].items():
        is_headline, adapter = metric == task["metric"], task["adapter"][metric]
        if base is None or adapter is None:  # these rows do not define it
            continue
        majority = task.get("majority") if metric == "accuracy" else None
        rows.append(
            [
                cell(name),
                str(task["n"]),
                HUB_METRICS.get(metric, ("", metric))[1],
                "-" if majority is None else f"{majority:.3f}",
                f"{base:.3f}",
                f"{adapter:.3f}",
                f"{adapter - base:+.3f}",
                f"{low:+.3f} to {high:+.3f}" if is_headline else "",
                _p_value(task.get("p_value")) if is_headline else "",
            ]
        )
    return rows


def _p_value(value: float | None) -> str:
    return "-" if value is None else ("< 0.001" if value < 0.001 else f"{value:.3f}")
