"""The commands that measure a model: eval, compare and audit."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from finetune.cli import arguments, options
from finetune.cli.console import console
from finetune.cli.options import Given
from finetune.cli.render import evaluation
from finetune.cli.workspace import Workspace
from finetune.machine import importing_libraries


@options.command(name="eval")
@click.argument("adapter", required=False, type=options.PATH)
@options.workspace
@click.option("--corpus", type=options.CORPUS, help="Corpus to evaluate on, instead of the workspace's.")
@options.fields("finetune.recipe.options:EvalOptions", ranges=True)
@options.base_model
@options.output_dir
@options.overwrite
@options.common
def evaluate_command(
    workspace: Workspace,
    adapter: Path | None,
    corpus: Path | str | None,
    model: str | None,
    output_dir: Path | None,
    overwrite: bool,
    given: Given,
) -> None:
    """Score the base model and the adapter side by side on held-out rows."""
    if given.get("lm_eval"):
        arguments.require_packages("--lm-eval", "lm-eval", "lm_eval")
    with importing_libraries():
        from finetune.evaluate import EvalRequest, evaluate, require_gate

    own = workspace.corpus if workspace.corpus.is_dir() or "tasks" not in given else None
    request = EvalRequest(
        adapter or workspace.adapter,
        corpus or own,
        output_dir or workspace.eval,
        model,
        overwrite,
        domain=workspace.given,
        train_command=workspace.command("train"),
        prepare_command=workspace.command("prepare"),
        resume_command=arguments.same_command(sys.argv[1:]),
        **given,
    )
    with console.progress() as progress:
        result = evaluate(request, progress.rows, progress.stage)
    following = workspace.command("merge", request.adapter, corpus=request.corpus)
    console.result(result, lambda: evaluation.render_evaluation(result, following))
    require_gate(result)


@options.command()
@click.argument("reports", nargs=-1, required=True, metavar="REPORT REPORT…")
@options.common
def compare_command(reports: tuple[str, ...]) -> None:
    """Compare evaluations: folders of eval, workspaces or files report.json, each also as NAME=PATH."""
    from finetune.cli.render.report_comparison import render_comparison

    with importing_libraries():
        from finetune.evaluate.compare import compare_reports, name_reports

    result = compare_reports(name_reports(reports))
    console.result(result, lambda: render_comparison(result))


@options.command()
@click.argument("adapter", required=False, type=options.PATH)
@options.workspace
@click.option(
    "--corpus", type=options.CORPUS, help="Corpus that the adapter was trained on, instead of the workspace's."
)
@click.option(
    "--canary-key", type=options.PATH, help="Key of the corpus's canaries.  [next to the corpus, if it is there]"
)
@click.option("--held-out", type=options.CORPUS, help="Corpus of rows to compare with, instead of the held-out splits.")
@options.fields("finetune.recipe.options:AuditOptions", ranges=True)
@options.base_model
@options.output_dir
@options.overwrite
@options.common
def audit_command(
    workspace: Workspace,
    adapter: Path | None,
    corpus: Path | str | None,
    canary_key: Path | None,
    held_out: Path | str | None,
    model: str | None,
    output_dir: Path | None,
    overwrite: bool,
    given: Given,
) -> None:
    """Find out what an adapter tells about the rows that it was trained on."""
    from finetune.cli.render.audit import render_audit

    with importing_libraries():
        from finetune.audit import AuditRequest, audit, require_no_leak

    request = AuditRequest(
        adapter or workspace.adapter,
        corpus or workspace.corpus,
        output_dir or workspace.audit,
        canary_key,
        held_out,
        model,
        overwrite,
        train_command=workspace.command("train"),
        prepare_command=workspace.command("prepare"),
        **given,
    )
    with console.progress() as progress:
        result = audit(request, progress.work)
    console.result(result, lambda: render_audit(result))
    require_no_leak(result)
