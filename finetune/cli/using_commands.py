"""The commands that use and share a model: serve, chat, push and pull."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from finetune.cli import arguments, options
from finetune.cli.console import console
from finetune.cli.dialogue import converse
from finetune.cli.options import Given
from finetune.cli.render import results
from finetune.cli.render.handover import vllm_commands
from finetune.cli.workspace import Workspace, served_artifact
from finetune.machine import importing_libraries, process_seconds

if TYPE_CHECKING:
    from finetune.serve import Handover


@options.command()
@click.argument("targets", nargs=-1, metavar="[NAME=ADAPTER]...")
@options.workspace
@options.fields("finetune.recipe.options:ServeOptions", ranges=True)
@click.option(
    "--api-key-file",
    type=options.PATH,
    help="File of the keys that clients may send, one per line: KEY, or NAME KEY.  [$SLMTUNE_API_KEYS]",
)
@click.option(
    "--admin-key-file",
    type=options.PATH,
    help="File of the keys with which adapters are loaded while the server runs.  [$SLMTUNE_ADMIN_KEYS]",
)
@click.option("--max-memory", help="Memory that the server may take in all, such as 2GiB; by default, what is free.")
@click.option("--print-vllm-command", is_flag=True, help="Print the commands that serve the same with vLLM, and exit.")
@options.base_model
@options.common
def serve_command(
    workspace: Workspace,
    targets: tuple[str, ...],
    api_key_file: Path | None,
    admin_key_file: Path | None,
    max_memory: str | None,
    print_vllm_command: bool,
    model: str | None,
    given: Given,
) -> None:
    """Serve adapters over HTTP, for clients of the OpenAI API."""
    with importing_libraries():
        from finetune.recipe.options import ServeOptions
        from finetune.serve import ServeTarget, hand_over, serve
        from finetune.serve.vllm_process import require_vllm

    named = [arguments.read_target(text) for text in targets] or arguments.list_adapters(given.get("adapter_dir"))
    named = named or [(workspace.name, served_artifact(workspace))]
    served = [ServeTarget(name, path) for name, path in named]
    serve_options, key_source = ServeOptions(**given), arguments.key_source(api_key_file)
    if print_vllm_command or serve_options.engine == "vllm":
        handover = hand_over(served, serve_options, has_key=key_source is not None, model=model)
        if print_vllm_command:
            commands = vllm_commands(handover, key_source)
            console.result(commands, lambda: "\n".join([*commands["exports"], commands["vllm"]]))
            return
        require_vllm()
        _export(handover)

    def show_ready(url: str) -> None:
        seconds, names = process_seconds(), ", ".join(dict(named))
        text = f"Ready after {seconds:.1f} s. Serving {names} at {url}/v1"
        console.result({"url": url, "seconds": round(seconds, 1)}, lambda: text)

    number = serve(
        served,
        serve_options,
        keys=[*arguments.read_api_keys(api_key_file), *arguments.read_admin_keys(admin_key_file)],
        model=model,
        max_memory=arguments.read_memory(max_memory),
        on_ready=show_ready,
    )
    raise SystemExit(128 + number)


def _export(handover: Handover) -> None:
    """Make the exports that vLLM lacks."""
    with importing_libraries():
        from finetune.export import ExportRequest, export_artifact
        from finetune.recipe.options import ExportOptions

    for missing in handover.exports:
        console.say(f"export: {missing.adapter} for vLLM")
        export_artifact(
            ExportRequest(missing.adapter, missing.folder, ExportOptions(format="vllm"), model=missing.model)
        )


@options.command()
@click.argument("targets", nargs=-1, metavar="[[NAME=]ADAPTER]...")
@options.workspace
@click.option("--system", help="System message that opens the conversation.")
@click.option("--prompt", help="Ask this one question and exit.")
@click.option(
    "--context", type=options.PATH, help="Text file in which an encoder finds answers, or the second of two texts."
)
@click.option("--save-history", is_flag=True, help="Keep what is typed for the arrow keys of later conversations.")
@options.fields("finetune.recipe.options:ChatOptions", ranges=True)
@options.base_model
@options.common
def chat_command(
    workspace: Workspace,
    targets: tuple[str, ...],
    system: str | None,
    prompt: str | None,
    context: Path | None,
    save_history: bool,
    model: str | None,
    given: Given,
) -> None:
    """Chat with an adapter, a merged model or a base model in the terminal; an encoder labels each line, or answers it."""
    with importing_libraries():
        from finetune.recipe.options import ChatOptions
        from finetune.serve import ServeTarget
        from finetune.serve.chat import open_conversation

    named = [arguments.read_target(text) for text in targets] or [(workspace.name, served_artifact(workspace))]
    (name, path), others = named[0], [ServeTarget(*other) for other in named[1:]]
    with open_conversation(
        name, path, ChatOptions(**given), system=system, context=context, model=model, others=others
    ) as conversation:
        converse(conversation, prompt, save_history=save_history)


@options.command()
@click.argument("path", type=options.PATH)
@click.argument("repo_id")
@click.option("--public", is_flag=True, help="Let anyone read a new repository; without this flag it is private.")
@click.option("--message", help="Commit message.")
@options.common
def push_command(path: Path, repo_id: str, public: bool, message: str | None) -> None:
    """Share a corpus, adapter, model or export through the Hugging Face Hub, privately by default."""
    from finetune.hub.push import push

    result = push(path, repo_id, public=public, message=message)
    console.result(result, lambda: results.render_push(result))


@options.command()
@click.argument("repo_id")
@click.option("--revision", help="Branch, tag or commit.")
@options.output_dir
@options.overwrite
@options.common
def pull_command(repo_id: str, revision: str | None, output_dir: Path | None, overwrite: bool) -> None:
    """Fetch a corpus, adapter, model or export from the Hugging Face Hub and verify it."""
    from finetune.hub.pull import pull

    out = output_dir or Path(repo_id.split("/")[-1])
    result = pull(repo_id, out, revision=revision, overwrite=overwrite)
    console.result(result, lambda: results.render_pull(result))
