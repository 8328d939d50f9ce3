"""The command line: every command in its group, and those about this machine and the project itself.

A command parses, makes one library call and renders. At the top of a file with commands stands only what `slmtune --help`
needs; each command imports its stage.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from finetune import __version__
from finetune.cli import data_commands, evaluation_commands, options, training_commands, using_commands
from finetune.cli.console import console
from finetune.cli.render import results
from finetune.cli.workspace import Workspace
from finetune.errors import EXIT_FAILURE
from finetune.machine import importing_libraries

if TYPE_CHECKING:
    from finetune.models.measured import ModelTask


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="slmtune")
def cli() -> None:
    """Turn a domain's own text into a small language model that is measurably better at it."""


@options.command()
@click.option(
    "--task",
    type=click.Choice(["classification", "extraction", "generation"]),
    help="Only models for this task, with what they cost and score.",
)
@options.common
def models_command(task: ModelTask | None) -> None:
    """List the base models that have a short name; a Hub id or a folder works too."""
    from finetune.models.measured import CONDITIONS, candidates
    from finetune.models.presets import PRESETS

    if task is not None:
        listed = candidates(PRESETS, task)
        console.result({"task": task, "models": listed}, lambda: results.render_candidates(listed, task, CONDITIONS))
        return
    presets = list(PRESETS.values())
    console.result({"models": presets}, lambda: results.render_models(presets))


@options.command()
@options.workspace
@options.common
def doctor_command(workspace: Workspace) -> None:
    """Check whether this machine is ready, and say how to fix what is not."""
    from finetune.cli.doctor import run_checks
    from finetune.hub.settings import is_offline

    report = run_checks(workspace=workspace.root, offline=is_offline())
    console.result(report, lambda: results.render_checks(report))
    if not report.ok:
        raise SystemExit(EXIT_FAILURE)


@options.command()
@click.option("--run-dir", type=options.PATH, help="Folder that contains the workspace, instead of runs/.")
@click.option("--model", help="Base model, instead of the default model.")
@click.option("--max-steps", type=int, help="Stop training after N steps.")
@options.common
def quickstart_command(run_dir: Path | None, model: str | None, max_steps: int | None) -> None:
    """Run the whole pipeline on the bundled finance sample: corpus, adapter, report, merged model."""
    with importing_libraries():
        from finetune.cli.quickstart import quickstart

    workspace = Workspace.named("quickstart", run_dir)
    with console.progress() as progress:
        result = quickstart(workspace, {"model": model, "max_steps": max_steps}, progress)
    console.result(result, lambda: results.render_quickstart(result, workspace))


for command in (
    *(
        data_commands.prepare_command,
        data_commands.scrub_command,
        data_commands.show_command,
        data_commands.domains_group,
    ),
    *(training_commands.train_command, training_commands.plan_command, training_commands.sweep_command),
    *(evaluation_commands.evaluate_command, evaluation_commands.compare_command, training_commands.merge_command),
    *(evaluation_commands.audit_command, training_commands.export_command),
    *(
        using_commands.serve_command,
        using_commands.chat_command,
        using_commands.push_command,
        using_commands.pull_command,
    ),
    *(models_command, doctor_command, quickstart_command),
):
    cli.add_command(command)
