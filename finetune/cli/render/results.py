"""Renders the results of commands as text: the artifact, its figures and the next command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.console import duration, facts, table
from finetune.cli.render.evaluation import render_scores
from finetune.cli.render.plan import describe_mixture
from finetune.machine import format_bytes

if TYPE_CHECKING:
    from finetune.cli.doctor import DoctorReport
    from finetune.cli.quickstart import QuickstartResult
    from finetune.cli.workspace import Workspace
    from finetune.export import ExportResult
    from finetune.hub.pull import PullResult
    from finetune.hub.push import PushResult
    from finetune.merge import MergeResult
    from finetune.models.measured import Candidate, Measurement
    from finetune.models.presets import Preset
    from finetune.prepare import PrepareResult
    from finetune.recipe import DomainRecipe
    from finetune.train import TrainResult

NEXT = """\
Try it:             slmtune chat --domain quickstart \
--system "Is this news bearish, neutral or bullish for the investor?"
With your own data: slmtune prepare --source FILE.csv && slmtune train && slmtune eval"""

UNUSED = 8  # columns, elements and files named after preparation


def render_corpus(result: PrepareResult, next_command: str) -> str:
    """The corpus and where its rows came from."""
    rows = [[one.id, one.shape, one.read, one.kept, one.license] for one in result.sources]
    dropped = f"{result.contaminated} rows dropped that contain items (contamination.jsonl)"
    summary = facts(
        {
            "corpus": result.address or result.corpus,
            "splits": _counts(result.splits),
            "dropped": _counts(result.dropped) or "none",
            "not used": _unused(result),
            "cleaned": _counts(result.cleaned) or "nothing",
            **_encodings(result),
            "near-duplicates": f"{result.clusters} clusters (clusters.jsonl)",
            "eval sets": f"{', '.join(result.evals)}: {dropped}" if result.evals else "none",
            "disjoint": result.disjoint,
            "scrubbed": _counts(result.scrubbed) or "none",
            **_canaries(result),
            "licence": result.license,
            "fingerprint": result.fingerprint[:16],
            "next": next_command,
        }
    )
    return f"{table(['source', 'read as', 'read', 'kept', 'licence'], rows)}\n\n{summary}"


def _canaries(result: PrepareResult) -> dict[str, str]:
    """Where the key of the canaries is, if any were drawn."""
    return {"canaries": f"{result.canaries} drawn; keep the key: {result.canary_key}"} if result.canary_key else {}


def _unused(result: PrepareResult) -> str:
    """What was not used, most frequent first; the card lists all of it."""
    from finetune.cards.corpus_facts import describe_unused  # here: `slmtune --help` imports this module

    phrases = describe_unused(sorted(result.unused, key=lambda each: -each.count), result.sources)
    named = [f"{name} ({count})" for name, count in islice(phrases.items(), UNUSED)]
    more = [f"{len(phrases) - UNUSED} more in README.md"] if len(phrases) > UNUSED else []
    return ", ".join([*named, *more]) or "nothing"


def _encodings(result: PrepareResult) -> dict[str, str]:
    """The encodings that were taken, if any is not UTF-8."""
    from finetune.cards.corpus_facts import describe_encodings

    encodings = describe_encodings(result.sources)
    return {"decoded as": f"{encodings} (--encoding)"} if encodings else {}


def render_adapter(result: TrainResult, next_command: str) -> str:
    """The adapter and what training took."""
    resumed = f", resumed from {result.resumed_from}" if result.resumed_from else ""
    held_out = "not measured" if result.eval_loss is None else f"{result.eval_loss:.4f}"
    early = f" of {result.planned_steps}, stopped early" if result.stopped_early else ""
    chosen = {} if result.metric is None else {"best step": _describe_step(result)}
    return facts(
        {
            "adapter": result.adapter,
            "steps": f"{result.steps}{early} ({result.epochs:.2f} epochs{resumed})",
            **chosen,
            **({"rows": f"{sum(result.mixture.values())}{describe_mixture(result.mixture)}"} if result.mixture else {}),
            "loss": f"{result.train_loss:.4f} in training, {held_out} held out",
            **_describe_preferences(result.eval_figures),
            "speed": f"{result.tokens_per_second:.0f} tokens/s ({result.tokens} tokens, "
            f"{result.supervised_tokens} supervised)",
            "peak memory": format_bytes(result.peak_memory_bytes),
            "time": duration(result.seconds),
            "next": next_command,
        }
    )


def _describe_preferences(figures: Mapping[str, float]) -> dict[str, str]:
    """The figures of preference tuning on the validation split, if there are any."""
    if "preference_accuracy" not in figures:
        return {}
    return {
        "preference": f"{figures['preference_accuracy']:.1%} of pairs held out, reward margin {figures['reward_margin']:.3f}"
    }


def _describe_step(result: TrainResult) -> str:
    """The step whose weights the adapter has, and their scores on the validation split."""
    scores = {"loss": result.eval_loss, **result.eval_figures}
    return f"{result.adapter_step} ({str(result.metric).replace('_', ' ')} {scores[result.metric or '']:.4f} held out)"


def render_merge(result: MergeResult, next_command: str) -> str:
    """The merges that were measured, each compared with the adapter, and the one that is kept."""
    prompts, alike = ("rows", "equal predictions") if result.is_encoder else ("prompts", "greedy agreement")
    rows = [
        [
            one.onto,
            one.distance.prompts,
            f"{one.distance.max_abs_logit_diff:.4f}",
            f"{max(one.distance.mean_kl, 0.0):.5f}",
            f"{one.distance.greedy_agreement:.1%}",
            _figure(one.distance.loss),
            _figure(one.score),
        ]
        for one in result.candidates
    ]
    rows.append(
        [
            "(adapter)",
            result.drift.prompts,
            "",
            "",
            "",
            _figure(result.drift.adapter_loss),
            _figure(result.adapter_score),
        ]
    )
    columns = ["merged onto", prompts, "max. logit difference", "mean KL, nats", alike, "loss", "F1"]
    verified = "verified" if result.verified else "not verified: it drifts"
    model = f"{result.model} ({verified})" if result.written else "not written (--dry-run)"
    (best,) = (one for one in result.candidates if one.onto == result.onto)
    summary = facts(
        {
            "model": model,
            "closest": f"onto the {result.onto} weights",
            **_describe_bundled(result.bundled_rows, result.drift.prompts),
            "weights": f"{best.replay.tensors} tensors equal base and adapter, {best.replay.merged} of them merged",
            "peak memory": format_bytes(result.peak_memory_bytes),
            "time": duration(result.seconds),
            "next": next_command,
        }
    )
    return f"{table(columns, rows)}\n\n{summary}"


def render_export(result: ExportResult) -> str:
    """The files, how closely they follow the adapter, and how they are run."""
    agreement = result.agreement
    verdict = (
        f"yes, in {agreement.runtime}: mean KL {max(agreement.mean_kl, 0.0):.4f} nats, greedy agreement {agreement.greedy:.1%} "
        f"({agreement.rows} rows)"
        if agreement
        else "no: nothing here runs these files"
    )
    return facts(
        {
            "export": f"{result.path} ({', '.join(filter(None, (result.format, result.quantization)))})",
            "verified": verdict,
            **(_describe_bundled(agreement.bundled_rows, agreement.rows) if agreement else {}),
            "size": format_bytes(result.size_bytes),
            **{name.replace("_", " "): f"{value:.4g}" for name, value in result.facts.items()},
            "peak memory": format_bytes(result.peak_memory_bytes),
            "time": duration(result.seconds),
            **({"run": "\n".join(result.commands)} if result.commands else {}),
        }
    )


def _describe_bundled(bundled: int, rows: int) -> dict[str, str]:
    """How many of the rows that were compared are no held-out ones, if any."""
    return {"rows": f"{bundled} of {rows} are general questions of slmtune, not held-out ones"} if bundled else {}


def render_push(result: PushResult) -> str:
    """Where the artifact was pushed and who can see it."""
    return facts(
        {
            result.kind: result.url,
            "visible to": "you and the people you invite" if result.private else "everyone",
            "commit": result.commit if result.changed else f"{result.commit} (unchanged: the Hub had every file)",
            "sent": f"{result.files} files, {format_bytes(result.bytes)}",
            "next": f"slmtune pull {result.repo_id}",
        }
    )


def render_pull(result: PullResult) -> str:
    """Where the pulled artifact is."""
    following = {"adapter": "slmtune chat", "model": "slmtune chat", "corpus": "slmtune train --corpus"}
    return facts(
        {
            result.kind: result.path,
            "revision": result.revision,
            "verified": "yes" if result.verified else "no",
            "next": f"{following.get(result.kind, 'ls')} {result.path}",
        }
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def render_quickstart(result: QuickstartResult, workspace: Workspace) -> str:
    """The summary at the end of `make quickstart`."""
    summary = facts(
        {
            "corpus": f"{workspace.corpus} ({_counts(result.prepare.splits)})",
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
    )
    return f"\n{render_scores(result.eval.tasks)}\n\n{summary}\n\n{NEXT}"


def render_domains(recipes: Sequence[DomainRecipe]) -> str:
    """The values that --domain accepts."""
    rows = [
        [recipe.name, ", ".join(recipe.tasks), ", ".join(f"{one.id} ({one.license})" for one in recipe.sources)]
        for recipe in recipes
    ]
    listed = table(["domain", "tasks", "sources (licence)"], rows)
    return f"{listed}\n\nEach has a bundled sample: slmtune prepare --domain {recipes[0].name} --sample"


def render_models(presets: Sequence[Preset]) -> str:
    """The presets that --model accepts."""
    rows = [
        [one.name, one.hub_id, f"{one.parameters / 1e6:,.0f} M", one.context, one.kind, _license(one)]
        for one in presets
    ]
    return table(["name", "Hub id", "parameters", "context", "kind", "licence"], rows)


def render_candidates(candidates: Sequence[Candidate], task: str, conditions: str) -> str:
    """The presets for a task; those that classify with what they cost and score, where that was measured."""
    columns, rows = ["name", "kind", "weights", "context"], []
    for one in candidates:
        preset = one.preset
        figures = _figures(one.measured) if task == "classification" else []
        rows.append([preset.name, preset.kind, f"{preset.parameters / 1e6:,.0f} M", preset.context, *figures])
    if task == "classification":
        columns += ["minutes", "memory", "F1", "latency"]
    listed = table(columns, rows)
    return f"{listed}\n\n{conditions}" if any(one.measured for one in candidates) else listed


def _figures(measured: Measurement | None) -> list[str]:
    if measured is None:
        return ["–"] * 4
    memory, latency = format_bytes(measured.peak_memory_bytes), f"{measured.latency_ms:.0f} ms"
    return [f"{measured.minutes:.1f}", memory, f"{measured.weighted_f1:.3f}", latency]


def render_checks(report: DoctorReport) -> str:
    """Every check, with a fix for each that failed."""
    lines = []
    for check in report.checks:
        mark = "ok  " if check.ok else "FAIL" if check.required else "note"
        lines.append(f"{mark}  {check.name:<14} {check.detail}")
        if not check.ok and check.fix:
            lines.append(f"{'':<20} fix: {check.fix}")
    return "\n".join(lines)


def render_new_domain(folder: Path) -> str:
    """Where the new domain is and how to try it."""
    return f"Created the domain {folder}. Edit recipe.yaml, or try it as it is: slmtune prepare --domain ./{folder} --sample"


def _license(preset: Preset) -> str:
    return preset.license + (", gated" if preset.gated else "")


def _counts(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in values.items())
