"""The command line: parse, one library call, render. A table of contents of what slmtune does."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from finetune import __version__
from finetune.cli import options
from finetune.cli.console import console
from finetune.cli.render import stages as render
from finetune.cli.workspace import Workspace, served_artifact
from finetune.errors import EXIT_FAILURE, EXIT_INPUT, SlmtuneError
from finetune.recipe import AdapterRecipe, domain_names, load_adapter_recipe, load_domain

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143  # 128 + SIGINT, 128 + SIGTERM


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="slmtune")
def cli() -> None:
    """Turn a domain's own text into a small language model that is measurably better at it."""


@cli.command()
@options.workspace
@options.preparation
@options.output_dir
@options.overwrite
@options.common
def prepare(workspace: Workspace, output_dir: Path | None, **given: Any) -> None:
    """Turn sources into a corpus: rows to train on, and rows held out."""
    from finetune.prepare import PrepareRequest
    from finetune.prepare import prepare as run

    out = output_dir or workspace.corpus
    request = PrepareRequest(out, domain=workspace.given, **render.preparation(given))
    with console.progress() as progress:
        result = run(request, progress.work)
    console.result(result, lambda: render.prepared(result, workspace))


@cli.command()
@click.argument("corpus", required=False, type=click.Path(path_type=Path))
@options.workspace
@click.option("--model", help="Base model whose tokenizer counts the tokens, instead of the default.")
@click.option("--samples", type=click.IntRange(min=0), help="Rows shown of each task.  [3]")
@options.common
def show(workspace: Workspace, corpus: Path | None, model: str | None, samples: int | None) -> None:
    """Look at a corpus: counts, lengths in tokens, and some of its rows."""
    from finetune.cli.render.corpus import render_view
    from finetune.corpus.view import show_corpus

    view = show_corpus(corpus or workspace.corpus, model=model, **({} if samples is None else {"samples": samples}))
    console.result(view, lambda: render_view(view))


@cli.command()
@options.workspace
@click.option("--corpus", type=click.Path(path_type=Path), help="Corpus to train on, instead of the workspace's.")
@click.option("--config", type=click.Path(path_type=Path), help="YAML file with any of the options below.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and stop.")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint of a run that was ended or killed.")
@options.output_dir
@options.overwrite
@options.recipe_fields(AdapterRecipe)
@options.common
def train(
    workspace: Workspace,
    corpus: Path | None,
    config: Path | None,
    dry_run: bool,
    resume: bool,
    output_dir: Path | None,
    overwrite: bool,
    overrides: dict[str, Any],
) -> None:
    """Train an adapter on a corpus: QLoRA by default."""
    recipe = load_adapter_recipe(workspace.given, config, overrides)
    from finetune.train import TrainRequest, plan_training
    from finetune.train import train as run

    request = TrainRequest(
        corpus or workspace.corpus,
        output_dir or workspace.adapter,
        recipe,
        overwrite=overwrite,
        resume=resume,
        resume_command=render.resuming(sys.argv[1:]),
        prepare_command=workspace.command("prepare"),
    )
    if dry_run:
        plan = plan_training(request)
        console.result(plan, lambda: render.plan(plan))
        return
    with console.progress() as progress:
        result = run(request, progress.step)
    console.result(result, lambda: render.trained(result, workspace))


@cli.command(name="plan")
@options.workspace
@options.recipe_fields(AdapterRecipe, options.PLANNED)
@click.option("--gpu", help="Memory of a GPU to plan for, as 8GiB, instead of this machine.")
@click.option("--memory", help="Main memory to plan for, as 16GiB, instead of what is free.")
@options.common
def plan_memory(workspace: Workspace, gpu: str | None, memory: str | None, overrides: dict[str, Any]) -> None:
    """Say how much memory training will take, and what would fit; from the model's config.json alone."""
    from finetune.cli.render.plan import render_plan
    from finetune.plan import plan

    made = plan(load_adapter_recipe(workspace.given, None, overrides), device=options.device(gpu, memory))
    console.result(made, lambda: render_plan(made))


@cli.command(name="eval")
@click.argument("adapter", required=False, type=click.Path(path_type=Path))
@options.workspace
@click.option(
    "--corpus", type=click.Path(path_type=Path), help="Corpus whose rows are asked, instead of the workspace's."
)
@click.option("--split", type=click.Choice(["test", "validation", "train"]), help="Rows that are asked.  [test]")
@click.option("--task", "tasks", multiple=True, help="Only this task; a task has the name of its source.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows a task.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Rows a forward pass.  [16]")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Longest generated answer.  [160]")
@click.option("--model", help="Where the adapter's base model lies, if not where it was trained.")
@options.output_dir
@options.overwrite
@options.common
def evaluate(
    workspace: Workspace, adapter: Path | None, corpus: Path | None, output_dir: Path | None, **given: Any
) -> None:
    """Score base and adapter side by side on held-out rows."""
    from finetune.evaluate import EvalRequest
    from finetune.evaluate import evaluate as run

    request = EvalRequest(
        adapter or workspace.adapter,
        corpus or workspace.corpus,
        output_dir or workspace.eval,
        train_command=workspace.command("train"),
        prepare_command=workspace.command("prepare"),
        **{name: value for name, value in given.items() if value is not None},
    )
    with console.progress() as progress:
        result = run(request, progress.rows)
    console.result(result, lambda: render.evaluated(result, workspace))


@cli.command()
@click.argument("adapter", required=False, type=click.Path(path_type=Path))
@options.workspace
@click.option("--corpus", type=click.Path(path_type=Path), help="Its held-out rows are the prompts of the comparison.")
@click.option("--model", help="Where the adapter's base model lies, if not where it was trained.")
@options.output_dir
@options.overwrite
@options.common
def merge(
    workspace: Workspace,
    adapter: Path | None,
    corpus: Path | None,
    model: str | None,
    output_dir: Path | None,
    overwrite: bool,
) -> None:
    """Fold an adapter into its base model and verify the result."""
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
    console.result(result, lambda: render.merged(result, workspace))


@cli.command()
@click.argument("targets", nargs=-1, metavar="[NAME=ADAPTER]...")
@options.workspace
@click.option("--host", help="Address to listen on; others than this machine's own need a key.  [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0: any free one.  [8000]")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="File with the key that clients must send.")
@click.option("--model", help="Where the adapter's base model lies, if not where it was trained.")
@options.common
def serve(workspace: Workspace, targets: tuple[str, ...], api_key_file: Path | None, **given: Any) -> None:
    """Serve adapters over HTTP; clients of the OpenAI API can talk to it."""
    from finetune.serve import ServeTarget
    from finetune.serve import serve as run

    named = [render.served(text) for text in targets] or [(workspace.name, served_artifact(workspace))]
    key = render.read_key(api_key_file) if api_key_file else None
    number = run(
        [ServeTarget(name, path) for name, path in named],
        api_key=key,
        on_ready=lambda url: console.result({"url": url}, lambda: f"Serving {', '.join(dict(named))} at {url}/v1"),
        **{name: value for name, value in given.items() if value is not None},
    )
    raise SystemExit(128 + number)


@cli.command()
@click.argument("adapter", required=False)
@options.workspace
@click.option("--system", help="An instruction that opens the conversation.")
@click.option("--prompt", help="Ask this one question and stop.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Longest answer.  [256]")
@click.option("--temperature", type=click.FloatRange(0, 2), help="0: always the likeliest word.  [0]")
@click.option("--model", help="Where the adapter's base model lies, if not where it was trained.")
@options.common
def chat(
    workspace: Workspace,
    adapter: str | None,
    system: str | None,
    prompt: str | None,
    max_new_tokens: int | None,
    temperature: float | None,
    model: str | None,
) -> None:
    """Talk to an adapter, a merged model or a base model in the terminal."""
    from finetune.serve.chat import open_conversation

    name, path = render.served(adapter) if adapter else (workspace.name, served_artifact(workspace))
    with open_conversation(
        name, path, model=model, system=system, max_tokens=max_new_tokens, temperature=temperature
    ) as conversation:
        console.converse(conversation, prompt)


@cli.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("repo_id")
@click.option("--public", is_flag=True, help="Anyone may read it; without this the repository is private.")
@click.option("--message", help="Commit message.")
@options.common
def push(path: Path, repo_id: str, public: bool, message: str | None) -> None:
    """Share an artifact through the Hugging Face Hub: private unless you say otherwise."""
    from finetune.hub.push import push as run

    result = run(path, repo_id, public=public, message=message)
    console.result(result, lambda: render.pushed(result))


@cli.command()
@click.argument("repo_id")
@click.option("--revision", help="Branch, tag or commit.")
@options.output_dir
@options.overwrite
@options.common
def pull(repo_id: str, revision: str | None, output_dir: Path | None, overwrite: bool) -> None:
    """Fetch an artifact from the Hugging Face Hub and verify it."""
    from finetune.hub.pull import pull as run

    out = output_dir or Path(repo_id.split("/")[-1])
    result = run(repo_id, out, revision=revision, overwrite=overwrite)
    console.result(result, lambda: render.pulled(result))


@cli.group(invoke_without_command=True)
@click.pass_context
@options.common
def domains(context: click.Context) -> None:
    """List the bundled domains, or start one of your own."""
    if context.invoked_subcommand is None:
        recipes = [load_domain(name).recipe for name in domain_names()]
        console.result({"domains": recipes}, lambda: render.domains(recipes))


@domains.command()
@click.argument("name")
@click.option("--output-dir", "--out", type=click.Path(path_type=Path), help="Where its folder goes.  [./NAME]")
@options.common
def new(name: str, output_dir: Path | None) -> None:
    """Write the folder of a new domain, which works as it is and is meant to be edited."""
    from finetune.cli.scaffold import new_domain

    folder = new_domain(name, output_dir or Path(name))
    console.result({"domain": folder}, lambda: render.new_domain(folder))


@cli.command()
@options.common
def models() -> None:
    """List the base models that have a short name; any Hub id or folder works too."""
    from finetune.models.presets import PRESETS

    presets = list(PRESETS.values())
    console.result({"models": presets}, lambda: render.models(presets))


@cli.command()
@options.workspace
@options.common
def doctor(workspace: Workspace) -> None:
    """Look whether this machine is ready, and say how to mend what is not."""
    from finetune.cli.doctor import run_checks
    from finetune.hub.settings import is_offline

    report = run_checks(workspace=workspace.root, offline=is_offline())
    console.result(report, lambda: render.examined(report))
    if not report.ok:
        raise SystemExit(EXIT_FAILURE)


@cli.command()
@click.option("--run-dir", type=click.Path(path_type=Path), help="Where the workspace lies, instead of runs/.")
@click.option("--model", help="Base model, instead of the default.")
@click.option("--max-steps", type=int, help="Stop training after so many steps.")
@options.common
def quickstart(run_dir: Path | None, model: str | None, max_steps: int | None) -> None:
    """Run the whole pipeline on the bundled finance sample: corpus, adapter, report, merged model."""
    from finetune.cli.quickstart import quickstart as run

    workspace = Workspace.named("quickstart", run_dir)
    with console.progress() as progress:
        result = run(
            workspace,
            overrides={"model": model, "max_steps": max_steps},
            on_stage=progress.stage,
            on_step=progress.step,
            on_progress=progress.rows,
        )
    console.result(result, lambda: render.quickstart(result, workspace))


class TerminatedError(BaseException):
    """SIGTERM arrived: unwind, so that nothing is left half-written."""


def main() -> NoReturn:
    """Run the command line and end the process with the documented exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        cli.main(standalone_mode=False)
        sys.exit(0)
    except SlmtuneError as error:
        console.error(error)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_INPUT)
    except (KeyboardInterrupt, click.Abort):
        console.error(RuntimeError("Interrupted"))
        sys.exit(EXIT_INTERRUPTED)
    except TerminatedError:
        console.error(RuntimeError("Terminated"))
        sys.exit(EXIT_TERMINATED)
    except Exception as error:
        console.unexpected(error)
        sys.exit(EXIT_FAILURE)


def _terminate(number: int, frame: object) -> None:
    raise TerminatedError
