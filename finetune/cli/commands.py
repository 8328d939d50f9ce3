"""The commands: parse, one library call, render. A table of contents of what slmtune does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from finetune import __version__
from finetune.cli import arguments, options
from finetune.cli.console import console
from finetune.cli.render import results
from finetune.cli.workspace import Workspace, served_artifact
from finetune.errors import EXIT_FAILURE, EXIT_INPUT
from finetune.machine import importing_libraries

# Only what `slmtune --help` needs is imported above; each command imports its stage.

Given = dict[str, Any]  # the options that the user set, by field name


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="slmtune")
def cli() -> None:
    """Turn a domain's own text into a small language model that is measurably better at it."""


cli.command_class = options.Command


@cli.command()
@options.workspace
@options.fields(
    "finetune.recipe.options:PrepareOptions",
    after={
        "columns": click.Option(
            ["--group-by"],
            metavar="COLUMN",
            help="Keep rows with the same value in this column (a patient, a ticker) in one split.",
        )
    },
)
@click.option("--dry-run", is_flag=True, help="Show how the first rows and documents would be read, and write nothing.")
@options.output_dir
@options.overwrite
@options.common
def prepare_command(
    workspace: Workspace,
    group_by: str | None,
    dry_run: bool,
    output_dir: Path | None,
    overwrite: bool,
    given: Given,
) -> None:
    """Turn sources into a corpus: rows to train on and rows to hold out."""
    from finetune.prepare import PrepareRequest, prepare

    chosen = arguments.read_preparation(given, group_by)
    request = PrepareRequest(output_dir or workspace.corpus, workspace.given, overwrite, **chosen)
    if dry_run:
        from finetune.cli.render.preview import render_preview
        from finetune.prepare.preview import preview

        first = preview(request)
        console.result(first, lambda: render_preview(first))
        if first.stops:
            raise SystemExit(EXIT_INPUT)
        return
    with console.progress() as progress:
        result = prepare(request, progress.work)
    console.result(result, lambda: results.render_corpus(result, workspace))


@cli.command()
@click.argument("corpus", required=False, type=options.PATH)
@options.workspace
@click.option("--model", help="Base model whose tokenizer counts the tokens, instead of the default model.")
@options.fields("finetune.recipe.options:ShowOptions", ranges=True)
@click.option("--mask", is_flag=True, help="Show rows as the model sees them, with the tokens that carry loss marked.")
@click.option("--diff", is_flag=True, help="Show rows before and after cleaning, those that changed first.")
@click.option(
    "--source", "sources", multiple=True, help="With --diff: a file that the corpus was made of, to read again."
)
@options.common
def show_command(
    workspace: Workspace,
    corpus: Path | None,
    model: str | None,
    mask: bool,
    diff: bool,
    sources: tuple[str, ...],
    given: Given,
) -> None:
    """Show a corpus: counts, lengths in tokens and some of its rows."""
    if mask and diff:
        raise click.UsageError("Set either --mask or --diff: each shows the rows in its own way.")
    if diff:
        from finetune.cli.render.comparison import render_comparison
        from finetune.prepare.compare import compare_cleaning

        comparison = compare_cleaning(corpus or workspace.corpus, sources, domain=workspace.given, **given)
        console.result(comparison, lambda: render_comparison(comparison))
        return
    if sources:
        raise click.UsageError("--source is for --diff: it names a file to compare with the corpus.")
    if mask:
        from finetune.cli.render.mask import render_mask
        from finetune.corpus.mask import show_mask

        masked = show_mask(corpus or workspace.corpus, model=model, **given)
        console.result(masked, lambda: render_mask(masked))
        return
    from finetune.cli.render.corpus import render_view
    from finetune.corpus.view import show_corpus

    view = show_corpus(corpus or workspace.corpus, model=model, **given)
    console.result(view, lambda: render_view(view))


@cli.command()
@options.workspace
@click.option("--corpus", type=options.PATH, help="Corpus to train on, instead of the workspace's.")
@click.option("--config", type=options.PATH, help="YAML file that sets any of the options below.")
@click.option("--dry-run", is_flag=True, help="Show what would be trained, without training.")
@click.option("--resume", is_flag=True, help="Resume a stopped or killed run from its newest checkpoint.")
@options.output_dir
@options.overwrite
@options.fields("finetune.recipe.adapter:AdapterRecipe")
@options.common
def train_command(
    workspace: Workspace,
    corpus: Path | None,
    config: Path | None,
    dry_run: bool,
    resume: bool,
    output_dir: Path | None,
    overwrite: bool,
    given: Given,
) -> None:
    """Train an adapter on a corpus: QLoRA by default."""
    from finetune.recipe import load_adapter_recipe

    recipe = load_adapter_recipe(workspace.given, config, given)
    from finetune.cli.render.plan import render_training_plan

    with importing_libraries():
        from finetune.train import TrainRequest, plan_training, train

    request = TrainRequest(
        corpus or workspace.corpus,
        output_dir or workspace.adapter,
        recipe,
        overwrite=overwrite,
        resume=resume,
        resume_command=arguments.resume_command(sys.argv[1:]),
        prepare_command=workspace.command("prepare"),
    )
    if dry_run:
        plan = plan_training(request)
        console.result(plan, lambda: render_training_plan(plan))
        return
    with console.progress() as progress:
        result = train(request, progress.step)
    console.result(result, lambda: results.render_adapter(result, workspace))


@cli.command()
@options.workspace
@options.fields("finetune.recipe.adapter:AdapterRecipe", options.MEMORY_FIELDS)
@click.option("--gpu", help="Plan for a GPU with this much memory, such as 8GiB, instead of this machine.")
@click.option("--memory", help="Plan for a CPU with this much memory, such as 16GiB, instead of what is free.")
@options.common
def plan_command(workspace: Workspace, gpu: str | None, memory: str | None, given: Given) -> None:
    """Estimate how much memory training takes, and what would fit, from config.json alone."""
    from finetune.cli.render.plan import render_plan
    from finetune.plan import plan
    from finetune.recipe import load_adapter_recipe

    result = plan(load_adapter_recipe(workspace.given, None, given), device=arguments.read_device(gpu, memory))
    console.result(result, lambda: render_plan(result))


@cli.command(name="eval")
@click.argument("adapter", required=False, type=options.PATH)
@options.workspace
@click.option("--corpus", type=options.PATH, help="Corpus to evaluate on, instead of the workspace's.")
@options.fields("finetune.recipe.options:EvalOptions", ranges=True)
@options.base_model
@options.output_dir
@options.overwrite
@options.common
def evaluate_command(
    workspace: Workspace,
    adapter: Path | None,
    corpus: Path | None,
    model: str | None,
    output_dir: Path | None,
    overwrite: bool,
    given: Given,
) -> None:
    """Score the base model and the adapter side by side on held-out rows."""
    with importing_libraries():
        from finetune.evaluate import EvalRequest, evaluate

    request = EvalRequest(
        adapter or workspace.adapter,
        corpus or workspace.corpus,
        output_dir or workspace.eval,
        model,
        overwrite,
        train_command=workspace.command("train"),
        prepare_command=workspace.command("prepare"),
        **given,
    )
    with console.progress() as progress:
        result = evaluate(request, progress.rows)
    console.result(result, lambda: results.render_evaluation(result, workspace))


@cli.command()
@click.argument("adapter", required=False, type=options.PATH)
@options.workspace
@click.option(
    "--corpus",
    type=options.PATH,
    help="Corpus whose held-out rows are the prompts of the comparison, instead of the workspace's.",
)
@options.base_model
@options.output_dir
@options.overwrite
@options.common
def merge_command(
    workspace: Workspace,
    adapter: Path | None,
    corpus: Path | None,
    model: str | None,
    output_dir: Path | None,
    overwrite: bool,
) -> None:
    """Merge an adapter into its base model and verify the result."""
    with importing_libraries():
        from finetune.merge import MergeRequest, merge_adapter

    request = MergeRequest(
        adapter or workspace.adapter,
        output_dir or workspace.model,
        corpus or (workspace.corpus if adapter is None else None),
        model,
        overwrite,
        train_command=workspace.command("train"),
    )
    result = merge_adapter(request, console.say)
    console.result(result, lambda: results.render_merge(result, workspace))


@cli.command()
@click.argument("targets", nargs=-1, metavar="[NAME=ADAPTER]...")
@options.workspace
@options.fields("finetune.recipe.options:ServeOptions", ranges=True)
@click.option("--api-key-file", type=options.PATH, help="File with the key that clients must send.")
@options.base_model
@options.common
def serve_command(
    workspace: Workspace, targets: tuple[str, ...], api_key_file: Path | None, model: str | None, given: Given
) -> None:
    """Serve adapters over HTTP, for clients of the OpenAI API."""
    with importing_libraries():
        from finetune.recipe.options import ServeOptions
        from finetune.serve import ServeTarget, serve

    named = [arguments.read_target(text) for text in targets] or [(workspace.name, served_artifact(workspace))]
    number = serve(
        [ServeTarget(name, path) for name, path in named],
        ServeOptions(**given),
        api_key=arguments.read_key(api_key_file) if api_key_file else None,
        model=model,
        on_ready=lambda url: console.result({"url": url}, lambda: f"Serving {', '.join(dict(named))} at {url}/v1"),
    )
    raise SystemExit(128 + number)


@cli.command()
@click.argument("adapter", required=False)
@options.workspace
@click.option("--system", help="System message that opens the conversation.")
@click.option("--prompt", help="Ask this one question and exit.")
@options.fields("finetune.recipe.options:ChatOptions", ranges=True)
@options.base_model
@options.common
def chat_command(
    workspace: Workspace, adapter: str | None, system: str | None, prompt: str | None, model: str | None, given: Given
) -> None:
    """Chat with an adapter, a merged model or a base model in the terminal."""
    with importing_libraries():
        from finetune.recipe.options import ChatOptions
        from finetune.serve.chat import open_conversation

    name, path = arguments.read_target(adapter) if adapter else (workspace.name, served_artifact(workspace))
    with open_conversation(name, path, ChatOptions(**given), system=system, model=model) as conversation:
        console.converse(conversation, prompt)


@cli.command()
@click.argument("path", type=options.PATH)
@click.argument("repo_id")
@click.option("--public", is_flag=True, help="Let anyone read a new repository; without this flag it is private.")
@click.option("--message", help="Commit message.")
@options.common
def push_command(path: Path, repo_id: str, public: bool, message: str | None) -> None:
    """Share an artifact through the Hugging Face Hub, privately by default."""
    from finetune.hub.push import push

    result = push(path, repo_id, public=public, message=message)
    console.result(result, lambda: results.render_push(result))


@cli.command()
@click.argument("repo_id")
@click.option("--revision", help="Branch, tag or commit.")
@options.output_dir
@options.overwrite
@options.common
def pull_command(repo_id: str, revision: str | None, output_dir: Path | None, overwrite: bool) -> None:
    """Fetch an artifact from the Hugging Face Hub and verify it."""
    from finetune.hub.pull import pull

    out = output_dir or Path(repo_id.split("/")[-1])
    result = pull(repo_id, out, revision=revision, overwrite=overwrite)
    console.result(result, lambda: results.render_pull(result))


@cli.group(invoke_without_command=True)
@click.pass_context
@options.common
def domains_group(context: click.Context) -> None:
    """List the bundled domains, or create one of your own."""
    from finetune.recipe import domain_names, load_domain

    if context.invoked_subcommand is None:
        recipes = [load_domain(name).recipe for name in domain_names()]
        console.result({"domains": recipes}, lambda: results.render_domains(recipes))


@domains_group.command()
@click.argument("name")
@click.option("--output-dir", "--out", type=options.PATH, help="Folder to create.  [./NAME]")
@options.common
def new_command(name: str, output_dir: Path | None) -> None:
    """Create the folder of a new domain: it works as it is and is meant to be edited."""
    from finetune.cli.scaffold import new_domain

    folder = new_domain(name, output_dir or Path(name))
    console.result({"domain": folder}, lambda: results.render_new_domain(folder))


@cli.command()
@options.common
def models_command() -> None:
    """List the base models that have a short name; a Hub id or a folder works too."""
    from finetune.models.presets import PRESETS

    presets = list(PRESETS.values())
    console.result({"models": presets}, lambda: results.render_models(presets))


@cli.command()
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


@cli.command()
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
