"""The commands from a corpus to a model: train, plan, sweep, merge and export."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from finetune.cli import arguments, options
from finetune.cli.console import console
from finetune.cli.options import Given
from finetune.cli.render import results
from finetune.cli.workspace import Workspace
from finetune.launcher import take_place
from finetune.machine import importing_libraries

if TYPE_CHECKING:
    from finetune.recipe import AdapterRecipe


@options.command()
@options.workspace
@click.option("--corpus", type=options.CORPUS, help="Corpus to train on, instead of the workspace's.")
@click.option("--replay-corpus", type=options.CORPUS, help="Corpus of the rows for --replay, instead of bundled ones.")
@click.option("--config", type=options.PATH, help="YAML file that sets any of the options below.")
@click.option("--check", type=click.Choice(["vllm"]), help="Refuse settings whose adapter vLLM and SGLang cannot load.")
@click.option(
    "--num-processes", type=click.IntRange(1), help="Processes that share each step, one per GPU or on the CPU."
)
@click.option("--print-launch", metavar="HOST,…:GPUS", help="Print the commands for several machines, such as a,b:8.")
@click.option("--dry-run", is_flag=True, help="Show what would be trained, without training.")
@click.option("--resume", is_flag=True, help="Resume a stopped or killed run from its newest checkpoint.")
@options.memory
@options.keep_rows
@options.output_dir
@options.overwrite
@options.fields("finetune.recipe.adapter:AdapterRecipe", after={"quantization": options.in_4bit})
@options.common
def train_command(
    workspace: Workspace,
    corpus: Path | str | None,
    replay_corpus: Path | str | None,
    config: Path | None,
    check: str | None,
    num_processes: int | None,
    print_launch: str | None,
    dry_run: bool,
    resume: bool,
    memory: str | None,
    keep_rows: bool,
    output_dir: Path | None,
    overwrite: bool,
    load_in_4bit: bool | None,
    given: Given,
) -> None:
    """Train an adapter on a corpus: QLoRA by default."""
    from finetune.recipe import load_adapter_recipe

    recipe = load_adapter_recipe(workspace.given, config, given | {"load_in_4bit": load_in_4bit})
    place = take_place(num_processes)  # before torch is imported, which might look for GPUs
    if check:
        from finetune.recipe.vllm_rules import require_loadable

        require_loadable(recipe)
    if print_launch:
        _print_launch(recipe, print_launch, memory, corpus or workspace.corpus, output_dir or workspace.adapter)
        return
    from finetune.cli.render.plan import render_training_plan

    with importing_libraries():
        from finetune.train import TrainRequest, plan_training, train

    request = TrainRequest(
        corpus or workspace.corpus,
        output_dir or workspace.adapter,
        recipe,
        overwrite=overwrite,
        resume=resume,
        replay_corpus=replay_corpus,
        memory=arguments.read_memory(memory),
        resume_command=arguments.resume_command(sys.argv[1:]),
        prepare_command=workspace.command("prepare"),
        num_processes=num_processes,
        keep_rows=keep_rows,
    )
    if dry_run:
        plan = plan_training(request)
        console.result(plan, lambda: render_training_plan(plan))
        return
    if place and place.rank:
        console.silence()
    with console.progress() as progress:
        result = train(request, progress.step)
    following = workspace.command("eval", result.adapter, corpus=request.corpus)
    console.result(result, lambda: results.render_adapter(result, following))


def _print_launch(recipe: AdapterRecipe, machines: str, memory: str | None, corpus: Path | str, out: Path) -> None:
    from finetune.cli.render.cluster import render_launch
    from finetune.plan.cluster.launch import plan_launch, write_files
    from finetune.plan.cluster.machines import read_cluster

    cluster = read_cluster(machines)
    words = arguments.without(sys.argv[1:], "--print-launch")
    launch = plan_launch(recipe, cluster, arguments.read_gpu(memory), words, corpus, out)
    write_files(launch)
    console.result(launch, lambda: render_launch(launch))


@options.command()
@options.workspace
@options.fields("finetune.recipe.adapter:AdapterRecipe", options.MEMORY_FIELDS, after={"quantization": options.in_4bit})
@options.memory
@click.option("--gpu", help="Plan for a GPU with this much memory, such as 8GiB, instead of this machine.")
@click.option("--cluster", is_flag=True, help="Time and cost of training on a table of GPUs.")
@click.option("--corpus", type=options.CORPUS, help="With --cluster: the corpus, instead of the workspace's.")
@click.option("--tokens", help="With --cluster: tokens to train on, such as 20M, instead of a corpus.")
@click.option("--price", type=click.FloatRange(0), help="With --cluster: US dollars per hour of a GPU.")
@options.common
def plan_command(
    workspace: Workspace,
    memory: str | None,
    gpu: str | None,
    cluster: bool,
    corpus: Path | str | None,
    tokens: str | None,
    price: float | None,
    load_in_4bit: bool | None,
    given: Given,
) -> None:
    """Estimate how much memory training takes, and what would fit, from config.json alone."""
    from finetune.cli.render.plan import render_plan
    from finetune.plan import plan
    from finetune.recipe import load_adapter_recipe

    recipe = load_adapter_recipe(workspace.given, None, given | {"load_in_4bit": load_in_4bit})
    if cluster:
        from finetune.cli.render.cluster import render_capacity
        from finetune.plan.cluster.capacity import count_tokens, plan_capacity

        folder, command = corpus or workspace.corpus, workspace.command("prepare")
        count = arguments.read_count(tokens) if tokens else count_tokens(recipe, folder, command)
        capacity = plan_capacity(recipe, count, price)
        console.result(capacity, lambda: render_capacity(capacity))
        return
    result = plan(recipe, device=arguments.read_device(gpu, memory))
    console.result(result, lambda: render_plan(result))


@options.command()
@options.workspace
@click.option("--corpus", type=options.CORPUS, help="Corpus to train and validate on, instead of the workspace's.")
@click.option("--config", type=options.PATH, help="YAML file that sets any of the options of train.")
@click.option("--dry-run", is_flag=True, help="Show what would be searched, without training.")
@click.option("--resume", is_flag=True, help="Resume a stopped or killed sweep, or add trials to a finished one.")
@options.memory
@options.keep_rows
@options.output_dir
@options.overwrite
@options.fields("finetune.recipe.options:SweepOptions", ranges=True)
@options.fields("finetune.recipe.adapter:AdapterRecipe")
@options.common
def sweep_command(
    workspace: Workspace,
    corpus: Path | str | None,
    config: Path | None,
    dry_run: bool,
    resume: bool,
    memory: str | None,
    keep_rows: bool,
    output_dir: Path | None,
    overwrite: bool,
    given: Given,
) -> None:
    """Search for the best settings: trains with different ones and compares the runs on the validation split."""
    from finetune.recipe import load_adapter_recipe

    searched = {name: given.pop(name) for name in ("search", "trials", "workers") if name in given}
    recipe = load_adapter_recipe(workspace.given, config, given)
    from finetune.cli.render import sweep as texts

    arguments.require_packages("slmtune sweep", "sweep", "optuna")
    with importing_libraries():
        from finetune.sweep import SweepRequest, plan_sweep, sweep

    request = SweepRequest(
        corpus or workspace.corpus,
        output_dir or workspace.sweep,
        recipe,
        overwrite=overwrite,
        resume=resume,
        memory=arguments.read_memory(memory),
        resume_command=arguments.resume_command(sys.argv[1:]),
        prepare_command=workspace.command("prepare"),
        keep_rows=keep_rows,
        **searched,
    )
    if dry_run:
        plan = plan_sweep(request)
        console.result(plan, lambda: texts.render_sweep_plan(plan))
        return
    with console.progress() as progress:
        result = sweep(request, progress.trial_step, lambda trial: progress.stage(texts.describe_trial(trial)))
    following = f"{workspace.command('train', corpus=request.corpus)} --config {shlex.quote(str(result.config))}"
    console.result(result, lambda: texts.render_sweep(result, following))


@options.command()
@click.argument("adapters", metavar="[ADAPTER]...", nargs=-1, type=options.PATH)
@options.workspace
@click.option(
    "--corpus",
    type=options.CORPUS,
    help="Corpus whose held-out rows are the prompts of the comparison, instead of the workspace's.",
)
@click.option(
    "--weights", metavar="N,N,…", help="Weights of several adapters, such as 0.7,0.3; by default, they are equal."
)
@options.fields("finetune.recipe.options:MergeOptions", ranges=True)
@click.option("--dry-run", is_flag=True, help="Measure the merge, without keeping the model.")
@options.base_model
@options.output_dir
@options.overwrite
@options.common
def merge_command(
    workspace: Workspace,
    adapters: tuple[Path, ...],
    corpus: Path | str | None,
    weights: str | None,
    dry_run: bool,
    model: str | None,
    output_dir: Path | None,
    overwrite: bool,
    given: Given,
) -> None:
    """Merge an adapter, or several of one base model, into the base model and verify the result."""
    with importing_libraries():
        from finetune.merge import MergeRequest, merge_adapter

    request = MergeRequest(
        adapters[0] if adapters else workspace.adapter,
        output_dir or workspace.model,
        arguments.held_out_corpus(corpus, adapters[0] if adapters else None, workspace),
        model,
        overwrite,
        dry_run,
        adapters[1:],
        arguments.read_weights(weights),
        train_command=workspace.command("train"),
        **given,
    )
    result = merge_adapter(request, console.say)
    following = (
        workspace.command("serve", result.model) if result.written else workspace.command("merge", request.adapter)
    )
    console.result(result, lambda: results.render_merge(result, following))


@options.command()
@click.argument("artifact", required=False, metavar="[ADAPTER|MODEL]")
@options.workspace
@options.fields("finetune.recipe.options:ExportOptions")
@click.option(
    "--corpus", type=options.CORPUS, help="Corpus whose held-out rows are compared, instead of the workspace's."
)
@options.base_model
@options.output_dir
@options.overwrite
@options.common
def export_command(
    workspace: Workspace,
    artifact: str | None,
    corpus: Path | str | None,
    model: str | None,
    output_dir: Path | None,
    overwrite: bool,
    given: Given,
) -> None:
    """Export an adapter, a merged model or a base model for another runtime, and verify it."""
    with importing_libraries():
        from finetune.export import ExportRequest, export_artifact
        from finetune.recipe.options import ExportOptions

    chosen = ExportOptions(**given)
    source = arguments.read_place(artifact) if artifact else workspace.adapter
    home = workspace if isinstance(source, Path) else workspace.named(Path(source).name, workspace.root.parent)
    request = ExportRequest(
        source,
        output_dir or home.export / chosen.format,
        chosen,
        arguments.held_out_corpus(corpus, artifact, workspace),
        model,
        overwrite,
        train_command=workspace.command("train"),
    )
    result = export_artifact(request, console.say)
    console.result(result, lambda: results.render_export(result))
