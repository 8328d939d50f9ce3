"""Model cards: what the Hub shows of an adapter, written from its manifest and its evaluation."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.artifacts import Adapter, EvalReport, Model
from finetune.errors import SlmtuneError
from finetune.recipe import domain_names, load_domain

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TEMPLATES = Path(__file__).parent / "templates"
PLACEHOLDER = "NAMESPACE/NAME"  # until a push says where the card will be read
CAUTION = "Not tested for any use that matters: check what it says before you rely on it."
UNKNOWN_LICENSES = {"", "other", "unknown"}
HUB_METRICS = {  # our name -> the Hub's metric id, name of the variant
    "accuracy": ("accuracy", "Accuracy"),
    "weighted_f1": ("f1", "F1 (weighted)"),
    "macro_f1": ("f1", "F1 (macro)"),
    "f1": ("f1", "F1"),
    "rouge_l": ("rouge", "ROUGE-L"),
    "exact_match": ("exact_match", "Exact match"),
}
SEAL = re.compile(r"\n<!-- slmtune wrote this card: ([0-9a-f]{64}) -->\n$")

log = logging.getLogger(__name__)


def model_card(
    artifact: Adapter | Model,
    report: EvalReport | None,
    *,
    repo_id: str | None = None,
    is_public: Callable[[str], bool] = lambda _: True,
) -> str:
    """The README.md of an adapter (or of the model that it was merged to): YAML metadata, then text.

    The same arguments give the same bytes. `is_public` tells which of the corpus's Hub data sets may be named.
    """
    tasks = _read_tasks(report)
    card = f"---\n{_metadata(artifact, tasks, is_public)}\n---\n\n{_body(artifact, tasks, repo_id)}"
    return f"{card}\n<!-- slmtune wrote this card: {_digest(card)} -->\n"


def is_untouched(card: str) -> bool:
    """Whether slmtune wrote this card and nobody has edited it since; only such a card may be replaced."""
    seal = SEAL.search(card)
    return seal is not None and _digest(card[: seal.start()]) == seal[1]


def _digest(card: str) -> str:
    return hashlib.sha256(card.encode()).hexdigest()


def _read_tasks(report: EvalReport | None) -> dict[str, dict[str, Any]]:
    if report is None:
        return {}
    tasks: dict[str, dict[str, Any]] = json.loads((report.path / "report.json").read_text("utf-8"))["tasks"]
    return tasks


def _metadata(artifact: Adapter | Model, tasks: Mapping[str, Any], is_public: Callable[[str], bool]) -> str:
    """The YAML front matter, without the lines of dashes."""
    from huggingface_hub import ModelCardData

    base, domain = _base(artifact), _domain(artifact)
    merged = isinstance(artifact, Model)
    on_hub = base.get("name", "").count("/") == 1  # a local folder's name would link to nothing
    unknown = _license(artifact) in UNKNOWN_LICENSES
    if unknown:
        log.warning("The licence of %s is unknown: the card says so. Find it out before you share.", base.get("name"))
    method = ["lora", "qlora"] if artifact.config.get("load_in_4bit") else ["lora"]
    relation = "finetune" if merged else "adapter"
    data = ModelCardData(
        language="en",
        license="other" if unknown else _license(artifact),
        license_name="unknown" if unknown else None,
        library_name="transformers" if merged else "peft",
        pipeline_tag="text-generation",
        base_model=base["name"] if on_hub else None,
        base_model_relation=relation if on_hub else None,
        datasets=[name for name in hub_datasets(artifact) if is_public(name)] or None,
        tags=["slmtune", *method, domain],
        metrics=sorted({HUB_METRICS.get(name, (name,))[0] for task in tasks.values() for name in _scores(task)})
        or None,
        model_name=f"{domain}-{'model' if merged else 'adapter'}",
        eval_results=_eval_results(domain, tasks) or None,
    )
    if not tasks:
        data.pop("model_name")
    return data.to_yaml(line_break="\n").strip()


def hub_datasets(artifact: Adapter | Model) -> list[str]:
    """The Hub ids among the corpus's sources, in order."""
    ids = [
        match[1]
        for source in _sources(artifact)
        if (match := re.match(r"hf://datasets/([^@:]+)", source.get("uri", "")))
    ]
    return list(dict.fromkeys(ids))


def _eval_results(domain: str, tasks: Mapping[str, dict[str, Any]]) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-generation",
            task_name=name,
            dataset_type=domain,
            dataset_name=f"slmtune {domain} corpus, held-out rows",
            dataset_config=name,
            dataset_split="test",
            metric_type=HUB_METRICS.get(metric, (metric,))[0],
            metric_name=HUB_METRICS.get(metric, ("", metric))[1],
            metric_value=value,
        )
        for name, task in tasks.items()
        for metric, value in _scores(task).items()
    ]


def _scores(task: Mapping[str, Any]) -> dict[str, float]:
    """The adapter's single-number scores of a task."""
    return {
        name: round(value, 4) for name, value in task["adapter"].items() if name in HUB_METRICS and value is not None
    }


def _body(artifact: Adapter | Model, tasks: Mapping[str, dict[str, Any]], repo_id: str | None) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    base, domain, repo_id = _base(artifact), _domain(artifact), repo_id or PLACEHOLDER
    noun = "model" if isinstance(artifact, Model) else "adapter"
    method = "QLoRA" if artifact.config.get("load_in_4bit") else "LoRA"
    text: str = environment.get_template("model_card.md.jinja").render(
        title=f"{domain.capitalize()} {noun} for {base.get('name')}",
        description=_description(domain, base.get("name"), noun),
        caution=_caution(domain),
        noun=noun,
        merged=noun == "model",
        domain=domain,
        domain_flag=domain in domain_names(),
        base_name=base.get("name"),
        base_revision=base.get("revision"),
        base_package=base["source"] if "==" in base.get("source", "") else None,
        license_unknown=_license(artifact) in UNKNOWN_LICENSES,
        method=method,
        four_bit=method == "QLoRA",
        slmtune_version=artifact.manifest.get("slmtune_version"),
        settings=_settings(artifact),
        sources=[{"name": _cell(row.get("id")), "license": _cell(row.get("license"))} for row in _sources(artifact)],
        results=[_result_row(name, task) for name, task in tasks.items()],
        repo_id=repo_id,
        folder=repo_id.split("/")[-1],
        lineage=_lineage(artifact),
    )
    return text


def _description(domain: str, base: object, noun: str) -> str:
    if noun == "model":
        return f"{base} with a LoRA adapter for the domain {domain} folded in: a plain transformers model."
    return (
        f"A LoRA adapter that fits {base} to the domain {domain}. It is only the difference: it needs its base model."
    )


def _caution(domain: str) -> str:
    """The sentence that the domain's recipe asks every card to repeat."""
    try:
        return load_domain(domain).recipe.caution if domain in domain_names() else CAUTION
    except SlmtuneError:
        return CAUTION


def _settings(artifact: Adapter | Model) -> list[tuple[str, str]]:
    """Hyperparameters and outcome as rows of a table; what the manifest does not know is left out."""
    config, result, corpus = artifact.config, artifact.manifest.get("result", {}), _corpus(artifact)
    targets = config.get("target_modules")
    batch, steps = config.get("per_device_train_batch_size"), config.get("gradient_accumulation_steps")
    counts = corpus.get("counts") or {}
    rows: list[tuple[str, Any]] = [
        ("Rows (train / validation / test)", " / ".join(str(counts[split]) for split in counts) if counts else None),
        ("Base model in training", "4-bit NF4, double quantisation" if config.get("load_in_4bit") else "unquantised"),
        ("LoRA rank, alpha, dropout", _joined(config, "lora_r", "lora_alpha", "lora_dropout")),
        ("Target modules", targets if isinstance(targets, str) else ", ".join(targets or [])),
        ("Learning rate, schedule, warm-up", _joined(config, "learning_rate", "lr_scheduler_type", "warmup_ratio")),
        ("Batch size × accumulation", f"{batch} × {steps}" if batch else None),
        ("Longest row in tokens", config.get("max_length")),
        ("Seed", config.get("seed")),
        ("Steps, epochs", _joined(result, "steps", "epochs")),
        ("Tokens", _number(result.get("tokens"))),
        ("Training loss", _number(result.get("train_loss"))),
        ("Held-out loss", _number(result.get("eval_loss"))),
        ("Time in seconds", _number(result.get("seconds"), 1)),
        ("Peak memory", f"{result['peak_memory_bytes'] / 2**30:.2f} GiB" if result.get("peak_memory_bytes") else None),
    ]
    return [(name, _cell(value)) for name, value in rows if value not in (None, "")]


def _result_row(name: str, task: Mapping[str, Any]) -> list[str]:
    """A line of the results table."""
    metric, (low, high) = task["metric"], task["ci95"]
    numbers = [task.get("majority"), task["base"].get(metric), task["adapter"].get(metric)]
    shown = ["-" if value is None else f"{value:.3f}" for value in numbers]
    p_value = task.get("p_value")
    p = "-" if p_value is None else ("< 0.001" if p_value < 0.001 else f"{p_value:.3f}")
    return [_cell(name), str(task["n"]), metric, *shown, f"{task['delta']:+.3f}", f"{low:+.3f} to {high:+.3f}", p]


def _lineage(artifact: Adapter | Model) -> list[tuple[str, str]]:
    parents = artifact.manifest.get("parents", {})
    known = [(name.replace("_", " ").capitalize(), parent["fingerprint"]) for name, parent in parents.items() if parent]
    if "files" in artifact.manifest:  # not yet while the artifact is being written
        known.append((f"This {artifact.kind}", artifact.fingerprint))
    return known


def _joined(values: Mapping[str, Any], *keys: str) -> str | None:
    present = [_number(values[key]) or str(values[key]) for key in keys if values.get(key) is not None]
    return ", ".join(present) or None


def _number(value: object, digits: int = 4) -> str | None:
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return None
    return f"{value:g}" if abs(value) < 0.01 else f"{value:.{digits}f}".rstrip("0").rstrip(".")


def _cell(value: object) -> str:
    """Text that cannot break out of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _base(artifact: Adapter | Model) -> Mapping[str, Any]:
    base: Mapping[str, Any] = artifact.manifest.get("parents", {}).get("base_model") or {
        "name": "an unknown base model"
    }
    return base


def _corpus(artifact: Adapter | Model) -> Mapping[str, Any]:
    corpus: Mapping[str, Any] = artifact.manifest.get("parents", {}).get("corpus") or {}
    return corpus


def _sources(artifact: Adapter | Model) -> Sequence[Mapping[str, Any]]:
    sources: Sequence[Mapping[str, Any]] = _corpus(artifact).get("sources") or []
    return sources


def _domain(artifact: Adapter | Model) -> str:
    return str(_corpus(artifact).get("domain") or "custom")


def _license(artifact: Adapter | Model) -> str:
    return str(_base(artifact).get("license") or "").lower()
