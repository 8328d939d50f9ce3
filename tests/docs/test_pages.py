"""The pages of the guide: all are linked, and the programs on them run."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pytest
import yaml

from ..command import PATIENCE, ROOT, fresh_environment
from ..hub.local_hub import USER, LocalHub

DOCS = ROOT / "docs"
QUICKER = {"YOUR_NAME": USER, "max_steps=20": "max_steps=2", "limit=50": "limit=8, max_new_tokens=4"}
PAGES = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


def test_index_links_every_page() -> None:
    links = re.findall(r"\]\(([\w/.-]+\.md)\)", (DOCS / "index.md").read_text("utf-8"))
    assert {"index.md", *links} == PAGES


def test_navigation_lists_every_page() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    assert sorted(pages_of(settings["nav"])) == sorted(PAGES)


def pages_of(entries: list[dict[str, object]]) -> Iterator[str]:
    """The pages of a navigation, including those in its folders."""
    for entry in entries:
        for page in entry.values():
            if isinstance(page, list):
                yield from pages_of(page)
            else:
                yield str(page)


@pytest.mark.slow
def test_python_page_is_a_program(tiny_model: Path, local_hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "smollm2-135m").symlink_to(tiny_model)  # a folder takes precedence over the preset of its name
    rows = [f"message number {number} about {label},{label}" for number in range(40) for label in ("cards", "loans")]
    (tmp_path / "tickets.csv").write_text("\n".join(["text,label", *rows]) + "\n", "utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / "python.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    program = "\n".join(blocks)
    for theirs, ours in QUICKER.items():
        assert theirs in program
        program = program.replace(theirs, ours)
    (tmp_path / "program.py").write_text(program, "utf-8")
    environment = fresh_environment() | local_hub.environ(tmp_path / "hf")
    with (
        (tmp_path / "stderr").open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-u", "program.py"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as running,
    ):
        watch = Timer(PATIENCE, running.kill)
        watch.start()
        assert running.stdout
        for line in running.stdout:
            if line.startswith("Ask at "):  # the server runs: Ctrl-C ends it
                running.send_signal(signal.SIGINT)
        watch.cancel()
    assert running.returncode == 0, (tmp_path / "stderr").read_text("utf-8")
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"tickets", "theirs"}
