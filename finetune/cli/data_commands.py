"""The commands for data: prepare, show and domains."""

from __future__ import annotations

from pathlib import Path

import click

from finetune.cli import arguments, options
from finetune.cli.console import console
from finetune.cli.options import Given
from finetune.cli.render import results
from finetune.cli.workspace import Workspace
from finetune.errors import EXIT_INPUT


@options.command()
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
@click.option(
    "--output-dir", "--out", type=options.CORPUS, help="Folder for the corpus, also in a bucket: s3://… or gs://…"
)
@options.overwrite
@options.common
def prepare_command(
    workspace: Workspace,
    group_by: str | None,
    dry_run: bool,
    output_dir: Path | str | None,
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
    following = workspace.command("train", corpus=result.address or result.corpus)
    if "preference" in result.by_task:
        following += " --method dpo"
    console.result(result, lambda: results.render_corpus(result, following))


@options.command()
@click.argument("corpus", required=False, type=options.CORPUS)
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
    corpus: Path | str | None,
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


@options.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@options.output_dir
@click.option("--domain", help="A domain whose recipe has rules about personal data: a bundled one, or a folder.")
@options.fields("finetune.recipe.options:ScrubOptions")
@click.option("--explain", is_flag=True, help="Show each span, which recogniser found it and why; shows personal data.")
@click.option(
    "--check", type=click.IntRange(1), metavar="N", help="Measure it: draw N rows, and take your corrections."
)
@click.option(
    "--check-file", type=options.PATH, help="With --check: write the rows to this file; read it when it is there."
)
@options.overwrite
@options.common
def scrub_command(
    files: tuple[str, ...],
    output_dir: Path | None,
    domain: str | None,
    explain: bool,
    check: int | None,
    check_file: Path | None,
    overwrite: bool,
    given: Given,
) -> None:
    """Find personal data in files and, with --output-dir, write them without it."""
    if explain and console.as_json:
        raise click.UsageError("--explain shows personal data on the terminal only. Leave out --json.")
    if check is None and check_file is not None:
        raise click.UsageError("--check-file is for --check: say how many rows to draw, such as --check 200.")
    if check is not None and (explain or output_dir is not None):
        raise click.UsageError("--check only measures. Leave out --explain and --output-dir.")
    from finetune.cli.render.scrub import render_explanations, render_scrub
    from finetune.prepare.scrub_files import Explanation, ScrubRequest, scrub_files

    request = ScrubRequest(files, output_dir, domain, overwrite, **given)
    if check is not None:
        from finetune.cli.scrub_dialogue import check_rows

        check_rows(request, check, check_file)
        return
    explanations: list[Explanation] = []
    result = scrub_files(request, explanations if explain else None)
    console.result(result, lambda: render_explanations(explanations) + render_scrub(result))


@click.group(invoke_without_command=True)
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
