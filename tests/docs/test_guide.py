"""The guide shows what its commands print: the same lines, columns and words; figures may differ."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..command import ROOT, Command
from ..command import run as slmtune
from ..hub.local_hub import USER, LocalHub

pytestmark = pytest.mark.slow

GUIDE = ROOT / "docs" / "guide"
PAGES = (
    "quickstart",
    "data",
    "plan",
    "training",
    "evaluation",
    "merging",
    "serving",
    "sharing",
)  # each continues the last
FOLDER, ENDPOINT, YOU = "/data", "https://huggingface.co", "YOUR_NAME"  # of the reader, on the pages
ANY_LENGTH = ("--max-truncated", "100%")  # the tiny model's tokenizer makes several tokens of most words
QUICKER = {
    "quickstart": ("--max-steps", 1),
    "train": ("--max-steps", 2, *ANY_LENGTH),
    "eval": ("--limit", 12, "--max-new-tokens", 4),
    "serve": ("--port", 0),
    "chat": ("--max-new-tokens", 4),
}
DEFAULT = "HuggingFaceTB/SmolLM2-135M-Instruct"
CHECK = re.compile(r"(ok|note|FAIL) +([\w-]+)")  # of the doctor, whose findings differ between machines
VERDICT = re.compile(r"^The adapter is .*?(?=\n\n|\Z)", re.M | re.S)  # follows from the figures
BAR = re.compile("[▏▎▍▌▋▊▉█]+")
FIGURE = re.compile(r"\b(?:[0-9a-f]{16}|[0-9a-f]{40})\b|[+-]?\d[\d.,:]*( ?%| ?[KMG]iB| ?B\b)?")


def outputs_in(page: str) -> Iterator[tuple[str, str]]:
    """Each command in a console block of a page, and the output below it."""
    for block in re.findall(r"^```console\n(.*?)^```$", (GUIDE / f"{page}.md").read_text("utf-8"), re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            yield command.partition(" #")[0].strip(), output


OUTPUTS = [(page, *output) for page in PAGES for output in outputs_in(page)]


@pytest.fixture(scope="module")
def printed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """The output of every command of the guide, run in order in one folder, with the tiny model as the default model."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "smollm2-135m").symlink_to(tiny_model)  # a folder takes precedence over the preset of its name
    outputs = {}
    with LocalHub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "110")  # the width of the guide's tables, whatever the terminal of the tests
        replacements = {tiny_model.name: DEFAULT, str(folder): FOLDER, hub.endpoint: ENDPOINT, f"{USER}/": f"{YOU}/"}
        for page, command, _ in OUTPUTS:
            words = shlex.split(command.replace("make quickstart", "slmtune quickstart").replace(YOU, USER))[1:]
            words += map(str, QUICKER.get(words[0], ()))
            if words[0] == "serve":
                output = serve_until_ready(words, folder)
            else:
                settings = hub.environ(folder / "hf") if words[0] in ("push", "pull") else None
                done = slmtune(*words, cwd=folder, env=settings)
                assert done.returncode == 0 or words[0] == "doctor", f"{command}: {done.stderr}"
                output = done.stdout
            for ours, theirs in replacements.items():
                output = output.replace(ours, theirs)
            outputs[page, command] = output
    return outputs


def serve_until_ready(words: list[str], folder: Path) -> str:
    """The output of a server that is stopped as soon as it is ready."""
    server = Command(*words, cwd=folder)
    assert server.until(lambda: server.stdout), server.stderr
    server.send(signal.SIGINT)
    assert server.wait() == 128 + signal.SIGINT
    return server.stdout


def lines_of(text: str) -> list[str]:
    """The lines of an output without their figures; consecutive lines that are then equal count once."""
    lines: list[str] = []
    for line in VERDICT.sub("", text.strip()).splitlines():
        check = CHECK.match(line)
        bare = check[2] if check else " ".join(FIGURE.sub("#", BAR.sub("", line)).split())
        if not bare.startswith("fix: ") and [bare] != lines[-1:]:
            lines.append(bare)
    return lines


@pytest.mark.parametrize(
    ("page", "command", "output"), OUTPUTS, ids=[f"{page}: {command}" for page, command, _ in OUTPUTS]
)
def test_guide_shows_what_the_command_prints(
    printed: dict[tuple[str, str], str], page: str, command: str, output: str
) -> None:
    if command.startswith("slmtune chat "):  # the answer of the tiny model is another one
        assert output.strip()
        return
    lines, (first, *last) = lines_of(printed[page, command]), [lines_of(part) for part in output.split("…\n")]
    assert lines[: len(first)] == first
    assert [lines[-len(part) :] for part in last] == last
    assert last or len(lines) == len(first)


@pytest.mark.parametrize("page", PAGES)
def test_every_page_shows_an_output(page: str) -> None:
    assert any(output.strip() for _, output in outputs_in(page))
