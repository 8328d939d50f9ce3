"""Results as text for people: what was made, what it scored, and the next command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.console import duration, facts, table
from finetune.cli.workspace import RUNS
from finetune.errors import InputError
from finetune.machine import format_bytes

if TYPE_CHECKING:
    from finetune.cli.doctor import DoctorReport
    from finetune.cli.quickstart import QuickstartResult
    from finetune.cli.workspace import Workspace
    from finetune.evaluate import EvalResult, TaskScore
    from finetune.hub.pull import PullResult
    from finetune.hub.push import PushResult
    from finetune.merge import MergeResult
    from finetune.models.presets import Preset
    from finetune.prepare import PrepareResult
    from finetune.recipe import DomainRecipe, SourceRecipe
    from finetune.train import TrainPlan, TrainResult


def preparation(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request to prepare out of the options of the command line.

    Raises:
        InputError: --map cannot be read.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    columns = dict(key_value(pair, "--map") for pair in chosen.pop("columns", ()))
    if "group_by" in chosen:
        columns["group"] = chosen.pop("group_by")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"workers": cores} | chosen | {"columns": columns}


def prepared(result: PrepareResult, workspace: Workspace) -> str:
    """The corpus and where its rows came from."""
    names = ("id", "shape", "read", "kept", "license")
    rows = [[getattr(source, name) for name in names] for source in result.sources]
    return "\n".join(
        [
            table(["source", "read as", "read", "kept", "licence"], rows),
            "",
            facts(
                {
                    "corpus": result.corpus,
                    "splits": _counts(result.splits),
                    "dropped": _counts(result.dropped) or "none",
                    "near-duplicates": f"{result.clusters} rows had some (clusters.jsonl)",
                    "eval sets": _evals(result),
                    "disjoint": result.disjoint,
                    "scrubbed": _counts(result.scrubbed) or "none",
                    "licence": result.license,
                    "fingerprint": result.fingerprint[:16],
                    "next": workspace.command("train"),
                }
            ),
        ]
    )


def _evals(result: PrepareResult) -> str:
    if not result.evals:
        return "none to compare with"
    return f"{', '.join(result.evals)}: {result.contaminated} rows gave one away (contamination.jsonl)"


def new_domain(folder: Path) -> str:
    """Where a new domain lies, and how to try it."""
    return f"{folder} is a domain. Edit recipe.yaml, or try it as it is: slmtune prepare --domain ./{folder} --sample"


def resuming(arguments: Sequence[str]) -> str:
    """The command that goes on with the run that these arguments began."""
    kept = [argument for argument in arguments if argument != "--resume"]
    return shlex.join(["slmtune", *kept, "--resume"])


def plan(made: TrainPlan) -> str:
    """What `train --dry-run` found."""
    return facts(
        {
            "base model": made.model,
            "rows": made.rows,
            "steps": made.steps,
            "tokens an epoch": f"{made.tokens_per_epoch} ({made.supervised_tokens_per_epoch} supervised)",
            "peak memory": _memory(made),
            "longest row": f"{made.longest} tokens ({made.truncated} rows lose their end)",
            **{name.replace("_", " "): value for name, value in made.recipe.model_dump().items() if value is not None},
        }
    )


def _memory(made: TrainPlan) -> str:
    if made.memory is None:
        return "unknown for this family of models"
    found = f"{format_bytes(made.memory.peak_bytes)} of {format_bytes(made.memory.free_bytes)} free"
    if made.memory.fits:
        return found
    return f"{found}: does not fit" + (f"; try {made.memory.suggestion.options}" if made.memory.suggestion else "")


def trained(result: TrainResult, workspace: Workspace) -> str:
    """The adapter and what it took."""
    return facts(
        {
            "adapter": result.adapter,
            "steps": f"{result.steps} ({result.epochs:.2f} epochs{_resumed(result)})",
            "loss": f"{result.train_loss:.4f} in training, {_loss(result.eval_loss)} held out",
            "speed": f"{result.tokens_per_second:.0f} tokens/s ({result.tokens} tokens, "
            f"{result.supervised_tokens} supervised)",
            "peak memory": format_bytes(result.peak_memory_bytes),
            "time": duration(result.seconds),
            "next": workspace.command("eval"),
        }
    )


def _resumed(result: TrainResult) -> str:
    return f", resumed from {result.resumed_from}" if result.resumed_from else ""


def evaluated(result: EvalResult, workspace: Workspace) -> str:
    """Base and adapter side by side."""
    return "\n".join(
        [
            scores(result.tasks),
            "",
            facts(
                {
                    "report": result.report,
                    "peak memory": format_bytes(result.peak_memory_bytes),
                    "time": duration(result.seconds),
                    "next": workspace.command("merge"),
                }
            ),
        ]
    )


def scores(tasks: Mapping[str, TaskScore]) -> str:
    """One table for all tasks."""
    columns = ["task", "n", "majority", "", "accuracy", "weighted F1", "token F1", "delta", "95 % interval", "p"]
    rows: list[Sequence[object]] = []
    for name, task in tasks.items():
        interval = f"{task.ci95[0]:+.3f} to {task.ci95[1]:+.3f}"
        majority = "" if task.majority is None else f"{task.majority:.3f}"
        rows.append([name, task.n, majority, "base", *_scores(task.base), "", "", ""])
        rows.append(
            ["", "", "", "adapter", *_scores(task.adapter), f"{task.delta:+.3f}", interval, f"{task.p_value:.4f}"]
        )
    empty = [number for number in (5, 6) if all(not row[number] for row in rows)]
    empty += [4] if all(not row[4] for row in rows) else []
    kept = [number for number in range(len(columns)) if number not in empty]
    return table([columns[number] for number in kept], [[row[number] for number in kept] for row in rows])


def merged(result: MergeResult, workspace: Workspace) -> str:
    """The merged model and how close it is to the adapter."""
    rows = [
        [name, far.prompts, f"{far.max_abs_logit_diff:.4f}", f"{far.mean_kl:.5f}", f"{far.greedy_agreement:.1%}"]
        for name, far in (
            ("adapter over the same weights", result.exact),
            ("adapter over its base as trained", result.drift),
        )
    ]
    columns = ["compared with", "prompts", "max. logit difference", "mean KL, nats", "greedy agreement"]
    return "\n".join(
        [
            table(columns, rows),
            "",
            facts(
                {
                    "model": f"{result.model} (onto the {result.onto} weights, "
                    f"{'verified' if result.verified else 'unverified'})",
                    "peak memory": format_bytes(result.peak_memory_bytes),
                    "time": duration(result.seconds),
                    "next": workspace.command("serve"),
                }
            ),
        ]
    )


def pushed(result: PushResult) -> str:
    """Where it went and who can see it."""
    return facts(
        {
            result.kind: result.url,
            "visible to": "you and whom you invite" if result.private else "everyone",
            "commit": result.commit if result.changed else f"{result.commit} (unchanged: the Hub had it all)",
            "sent": f"{result.files} files, {format_bytes(result.bytes)}",
            "next": f"slmtune pull {result.repo_id}",
        }
    )


def pulled(result: PullResult) -> str:
    """Where it lies."""
    following = {"adapter": "slmtune chat", "model": "slmtune chat", "corpus": "slmtune train --corpus"}
    return facts(
        {
            result.kind: result.path,
            "revision": result.revision,
            "verified": "yes" if result.verified else "no",
            "next": f"{following.get(result.kind, 'ls')} {result.path}",
        }
    )


def domains(recipes: Sequence[DomainRecipe]) -> str:
    """What can be given to --domain."""
    rows = [
        [recipe.name, ", ".join(recipe.tasks), ", ".join(_source(source) for source in recipe.sources)]
        for recipe in recipes
    ]
    listed = table(["domain", "tasks", "sources (licence)"], rows)
    return f"{listed}\n\nEach brings a sample: slmtune prepare --domain {recipes[0].name} --sample"


def models(presets: Sequence[Preset]) -> str:
    """What can be given to --model."""
    rows = [
        [
            preset.name,
            preset.hub_id,
            f"{preset.parameters / 1e6:,.0f} M",
            preset.context,
            preset.kind,
            preset.license + (", gated" if preset.gated else ""),
        ]
        for preset in presets
    ]
    return table(["name", "Hub id", "parameters", "context", "kind", "licence"], rows)


def examined(report: DoctorReport) -> str:
    """Every check, and the fix of each that failed."""
    lines = []
    for check in report.checks:
        mark = "ok  " if check.ok else "FAIL" if check.required else "note"
        lines.append(f"{mark}  {check.name:<14} {check.detail}")
        if not check.ok and check.fix:
            lines.append(f"{'':<20} fix: {check.fix}")
    return "\n".join(lines)


def quickstart(result: QuickstartResult, workspace: Workspace) -> str:
    """The table that `make quickstart` ends with."""
    corpus = result.prepare.splits
    return "\n".join(
        [
            "",
            scores(result.eval.tasks),
            "",
            facts(
                {
                    "corpus": f"{workspace.corpus} ({_counts(corpus)})",
                    "adapter": workspace.adapter,
                    "report": result.eval.report,
                    "merged model": f"{workspace.model} (verified: mean KL {result.merge.mean_kl:.4f} nats, "
                    f"greedy agreement {result.merge.greedy_agreement:.0%})",
                    "training": f"{result.train.steps} steps, {result.train.tokens_per_second:.0f} tokens/s, "
                    f"{duration(result.train.seconds)}",
                    "evaluation": duration(result.eval.seconds),
                    "merge": duration(result.merge.seconds),
                    "peak memory": format_bytes(result.merge.peak_memory_bytes),
                }
            ),
            "",
            "Try it:             slmtune chat --domain quickstart"
            ' --system "Is this news bearish, neutral or bullish for the investor?"',
            "With your own data: slmtune prepare --source FILE.csv && slmtune train && slmtune eval",
        ]
    )


def key_value(text: str, option: str) -> tuple[str, str]:
    """Split NAME=VALUE.

    Raises:
        InputError: there is no equals sign.
    """
    name, separator, value = text.partition("=")
    if not separator or not name or not value:
        raise InputError(f"{option} {text}: write it as NAME=COLUMN, for example {option} text=headline")
    return name.strip(), value.strip()


def served(text: str) -> tuple[str, Path | str]:
    """NAME=ADAPTER, or an adapter, whose folder names it, or a base model's name."""
    name, separator, value = text.partition("=")
    place = value if separator else text
    path = Path(place)
    is_path = path.exists() or path.parts[0] == RUNS.name or place.startswith((".", "~", "/"))
    return (name if separator else path.name), (path.expanduser() if is_path else place)


def read_key(path: Path) -> str:
    """The API key in a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(f"The key in {path} cannot be read ({reason}). Put a long random string there") from None


def _scores(values: Mapping[str, float]) -> list[str]:
    return [f"{values[name]:.3f}" if name in values else "" for name in ("accuracy", "weighted_f1", "token_f1")]


def _counts(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in values.items())


def _loss(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


def _source(source: SourceRecipe) -> str:
    return f"{source.id} ({source.license})"
