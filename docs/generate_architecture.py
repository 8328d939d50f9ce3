"""Write the room maps of docs/architecture.md and CONTRIBUTING.md from the package; with --check, only compare.

Also checks what import-linter cannot: a package's `__init__` only re-exports, and no module imports the `__init__` of a
package that contains it.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "finetune"
PAGE = ROOT / "docs" / "architecture.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- rooms: written by make docs -->\n", "<!-- end of rooms -->\n"


def rooms() -> list[Path]:
    """The modules and packages directly in the package, sorted by name."""
    paths = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    return sorted(path for path in paths if path.stem not in ("__init__", "__main__"))


def sentence(path: Path) -> str:
    """The first sentence of a module's or package's docstring."""
    file = path / "__init__.py" if path.is_dir() else path
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).rstrip(".")


def name(path: Path) -> str:
    """The name of a room on the maps."""
    return f"{path.relative_to(ROOT).as_posix()}{'/' if path.is_dir() else ''}"


def short_map() -> Iterator[str]:
    """One row per room."""
    yield "| room | contents |"
    yield "|---|---|"
    for room in rooms():
        yield f"| `{name(room)}` | {sentence(room)} |"


def full_map(graph: grimp.ImportGraph) -> Iterator[str]:
    """Every room with its files and the rooms that it imports."""
    arrows = {room.stem: imported_rooms(graph, room.stem) for room in rooms()}
    yield f"{len(arrows)} rooms, {sum(map(len, arrows.values()))} import arrows between them."
    for room in rooms():
        imports = ", ".join(f"`{other}`" for other in sorted(arrows[room.stem])) or "nothing"
        yield f"\n### `{name(room)}`\n\n{sentence(room)}. Imports: {imports}."
        if room.is_dir():
            yield ""
            yield from contents(room, 0)


def contents(folder: Path, depth: int) -> Iterator[str]:
    """The modules of a package as a list, those of its packages indented below them."""
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        is_package = (path / "__init__.py").is_file()
        if is_package or (path.suffix == ".py" and path.stem != "__init__"):
            yield f"{'  ' * depth}- `{path.name}{'/' if is_package else ''}`: {sentence(path)}"
        if is_package:
            yield from contents(path, depth + 1)


def imported_rooms(graph: grimp.ImportGraph, room: str) -> set[str]:
    """The other rooms that a room imports."""
    modules = {f"finetune.{room}", *graph.find_descendants(f"finetune.{room}")}
    imported = {one for module in modules for one in graph.find_modules_directly_imported_by(module)}
    return {one.split(".")[1] for one in imported if "." in one} - {room}


def broken_faces(graph: grimp.ImportGraph) -> Iterator[str]:
    """Every `__init__` that does more than re-export, and every import of a package by a module in it."""
    for file in sorted(PACKAGE.rglob("__init__.py")):
        for node in ast.parse(file.read_text("utf-8")).body:
            if not is_face(node):
                yield f"{file.relative_to(ROOT)}:{node.lineno}: an __init__ contains only a docstring and re-exports"
    for module in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            if module.startswith(f"{imported}.") and imported != "finetune":
                yield f"{module} imports {imported}, which contains it: import the module that defines the name"


def is_face(node: ast.stmt) -> bool:
    """Whether a statement is a docstring, a re-export, or a name such as `__all__`."""
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Name) and target.id.startswith("__") for target in node.targets)
    return isinstance(node, ast.ImportFrom) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def replace_map(file: Path, lines: Iterator[str]) -> tuple[str, str]:
    """A file's text, and the text with the map between its marks replaced."""
    text = file.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return text, before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + after


def main() -> None:
    """Write the maps, or only compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="Write nothing; exit 1 if a map is out of date.")
    check = parser.parse_args().check
    graph = grimp.build_graph("finetune", cache_dir=None)
    problems = list(broken_faces(graph))
    for file, lines in ((PAGE, full_map(graph)), (CONTRIBUTING, short_map())):
        old, new = replace_map(file, lines)
        if not check:
            file.write_text(new, "utf-8")
        elif old != new:
            problems.append(f"{file.relative_to(ROOT)} is out of date. Write it again with: make docs")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
