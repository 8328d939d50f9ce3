"""Rules about the source tree that no linter checks; the name or the docstring of each says why."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import finetune
from finetune import errors
from finetune.models.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "finetune").rglob("*.py"))
MAY_PRINT = {"commands.py", "data_commands.py", "using_commands.py", "console.py", "entry.py"}
HEAVY = {"torch", "transformers", "peft", "trl", "datasets", "bitsandbytes", "huggingface_hub", "pyarrow"}
LATER_EXIT_CODES = {130, 143}  # SIGINT and SIGTERM


@pytest.mark.parametrize("folder", ["datasets", "adapters"])
def test_recipe_folders_contain_no_python(folder: str) -> None:
    """Python in `datasets/` would shadow Hugging Face's library, and recipes never execute code."""
    assert (ROOT / folder).is_dir()
    assert not list((ROOT / folder).rglob("*.py"))


def test_git_does_not_ignore_recipes() -> None:
    """An ignored folder is left out of the sdist, and the wheel built from that sdist fails."""
    patterns = [line.strip().strip("/") for line in (ROOT / ".gitignore").read_text("utf-8").splitlines()]
    assert not {"datasets", "adapters", "data", "*.jsonl", "*.yaml"} & set(patterns)


def test_no_module_has_a_name_without_meaning() -> None:
    assert not {"utils", "common", "helpers", "misc"} & {path.stem for path in MODULES}


def test_only_the_command_line_prints_or_exits() -> None:
    silent = [path for path in MODULES if path.name not in MAY_PRINT or path.parent.name != "cli"]
    assert len(silent) == len(MODULES) - len(MAY_PRINT)
    calls = ((path, node.lineno, name) for path in silent for node, name in _calls(path))
    assert [call for call in calls if call[-1] in _FORBIDDEN_CALLS] == []


_FORBIDDEN_CALLS = {
    "print", "rich.print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write",
    "exit", "quit", "sys.exit", "os._exit", "SystemExit",
}  # fmt: skip


def _calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield node, ast.unparse(node.func)


def test_help_loads_no_heavy_library() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "finetune", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "click" in loaded  # the list of modules is not empty
    assert not HEAVY & loaded


def test_every_import_is_a_declared_dependency() -> None:
    """A library that is installed only for another one may disappear with the next release of that one."""
    project = _project()
    optional = [line for lines in project["optional-dependencies"].values() for line in lines]
    declared = {canonicalize_name(Requirement(line).name) for line in project["dependencies"] + optional}
    provided_by = metadata.packages_distributions()
    later = {"compression"}  # in the standard library from Python 3.14
    undeclared = {
        f"{path.name}: {name}"
        for path in MODULES
        for name in _imported(path) - sys.stdlib_module_names - later - {"finetune"}
        if not declared & {canonicalize_name(one) for one in provided_by.get(name, [])}
    }
    assert not undeclared


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_every_dependency_is_pinned_within_its_range() -> None:
    """CI must test what the ranges in pyproject.toml promise."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = {
        canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines) if version
    }
    project = _project()
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    requirements = [Requirement(line) for group in groups for line in group]
    wrong = [
        str(one)
        for one in requirements
        if one.name != "slmtune"
        and not one.specifier.contains(pins.get(canonicalize_name(one.name), "0"), prereleases=True)
    ]
    assert not wrong


def test_every_dependency_has_a_floor_and_a_ceiling() -> None:
    unbounded = [line for line in _project()["dependencies"] if ">=" not in line or ",<" not in line]
    assert not unbounded


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return project


def test_the_tree_of_errors_is_complete_with_exit_codes() -> None:
    drawn = dict(re.findall(r"(\w+Error) +(\d+)", errors.__doc__ or ""))
    actual = {one.__name__: str(one.exit_code) for one in _subclasses(errors.SlmtuneError)}
    assert drawn == actual


def _subclasses(kind: type[errors.SlmtuneError]) -> Iterator[type[errors.SlmtuneError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _subclasses(child)


def test_every_error_says_what_to_do() -> None:
    """docs/errors.md shows the docstrings: a sentence, and below it what to do."""
    assert not [one.__name__ for one in _subclasses(errors.SlmtuneError) if "\n\n" not in (one.__doc__ or "")]


def test_guide_explains_every_exit_code() -> None:
    table = (ROOT / "docs" / "index.md").read_text("utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE)}
    assert documented == {0, *LATER_EXIT_CODES, *(one.exit_code for one in _subclasses(errors.SlmtuneError))}


def test_guide_lists_every_preset() -> None:
    table = (ROOT / "docs" / "guide" / "training.md").read_text("utf-8")
    rows = set(re.findall(r"^\| `([\w.-]+)` \| `[\w.-]+/[\w.-]+` \|", table, flags=re.MULTILINE))
    assert rows == set(PRESETS)


def test_guide_marks_the_encoders() -> None:
    table = (ROOT / "docs" / "guide" / "training.md").read_text("utf-8")
    marked = set(re.findall(r"^\| `([\w.-]+)` \| .*; an encoder \|$", table, flags=re.MULTILINE))
    assert marked == {preset.name for preset in PRESETS.values() if preset.kind == "encoder"}


def test_changelog_has_this_version() -> None:
    assert f"## [{finetune.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
