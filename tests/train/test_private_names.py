"""Private names of other libraries that training uses: each exists, and each has a reason."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from importlib import metadata
from pathlib import Path

import pytest

from finetune.train import private_names
from finetune.train.private_names import PRIVATE_NAMES

FOLDER = Path(private_names.__file__).parent


def source_of(path: str) -> str:
    """The source of the module that defines a class, where its methods set the attributes of instances."""
    library, kind, _ = path.split(".")
    file = inspect.getsourcefile(getattr(importlib.import_module(library), kind))
    assert file is not None
    return Path(file).read_text("utf-8")


def has_name(source: str, name: str) -> bool:
    return re.search(rf"\b(def {name}\(|self\.{name} = |{name}: )", source) is not None


@pytest.mark.parametrize("path", PRIVATE_NAMES)
def test_library_still_has_the_private_name(path: str) -> None:
    library, _, name = path.split(".")
    version = metadata.version(library)
    assert has_name(source_of(path), name), f"{path} is gone from {library} {version}. It was: {PRIVATE_NAMES[path]}"


def test_no_other_private_name_is_used() -> None:
    """Every name with an underscore in finetune/train that also exists in one of the libraries must be listed."""
    used: set[str] = set()
    for file in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                used.add(node.name)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
                used.add(ast.unparse(node.args[1]).strip("'"))
    sources = {source_of(path) for path in PRIVATE_NAMES}
    private = {name for name in used if re.fullmatch(r"_[a-z]\w+", name)}
    assert {name for name in private if any(has_name(source, name) for source in sources)} == {
        path.split(".")[2] for path in PRIVATE_NAMES
    }
