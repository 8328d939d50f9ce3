"""`slmtune scrub --check` draws rows, takes corrections in the terminal or a file, and prints figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from finetune.cli import cli
from finetune.errors import InputError
from finetune.prepare.scrub_check import correct, draw_rows, mark_text, read_marks
from finetune.prepare.scrub_files import ScrubRequest

from .conftest import write_jsonl


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twenty rows with an address, a name that nothing finds in one of them, and eighty with nothing."""
    rows = [{"note": f"Jane wrote from p{n}@example.com on  \nthat day."} for n in range(20)]
    return write_jsonl(tmp_path / "rows.jsonl", [*rows, *({"note": f"Nothing in {n}."} for n in range(80))])


def slmtune(*arguments: object, typed: str = "") -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)], input=typed)


def test_half_of_the_rows_have_something_found_and_the_draw_repeats(source: Path) -> None:
    request = ScrubRequest((str(source),))
    draw = draw_rows(request, 10)
    assert draw == draw_rows(request, 10) != draw_rows(ScrubRequest((str(source),), seed=1), 10)
    assert [sum(bool(row.found) is half for row in draw.rows) for half in (True, False)] == [5, 5]
    assert draw.sizes == {True: 20, False: 80}
    many = draw_rows(request, 60)
    assert sum(bool(row.found) for row in many.rows) == 20
    assert len(many.rows) == 60


def test_marks_are_written_and_read() -> None:
    text = "Jane (jane@example.com)"
    marked = mark_text(text, [(6, 22, "EMAIL"), (0, 4, "NAME")])
    assert marked == "⟦NAME|Jane⟧ (⟦EMAIL|jane@example.com⟧)"
    assert read_marks(marked) == (text, ((0, 4, "NAME"), (6, 22, "EMAIL")))


def test_corrections_in_the_terminal(source: Path) -> None:
    row = next(row for row in draw_rows(ScrubRequest((str(source),)), 2).rows if row.found)
    assert correct(row, row.found, "-1") == ()
    named = correct(row, row.found, "+name Jane")
    assert [kind for _, _, kind in named] == ["NAME", "EMAIL"]
    for answer in ("+NAME Joe", "+NAME", "2", "yes"):
        with pytest.raises(InputError):
            correct(row, row.found, answer)


def test_figures_from_the_terminal(source: Path) -> None:
    answers = "+NAME Jane\n\n" + "\n" * 9
    done = slmtune("scrub", source, "--check", 10, typed=answers)
    assert done.exit_code == 0, done.output
    assert "⟦EMAIL|p" in done.stdout
    table = " ".join(done.stdout[done.stdout.index("kind ") :].split())
    assert "10 of 100 rows were checked; in 0 of the 5 in which nothing was found" in table
    assert "NAME 1 0.00" in table
    assert "EMAIL 5 1.00" in table
    assert "@" not in table
    stopped = slmtune("scrub", source, "--check", 10, typed="s\n\nq\n").stdout
    assert "1 of 100 rows were checked" in stopped


def test_figures_from_a_file(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "check.txt"
    command = ("scrub", source, "--check", 10, "--check-file", file, "--json")
    assert json.loads(slmtune(*command).stdout)["rows"] == 10
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text("utf-8")
    file.write_text(text.replace("Jane", "⟦NAME|Jane⟧"), "utf-8")
    result = json.loads(slmtune(*command).stdout)
    assert (result["checked"], result["figures"]["NAME"]["spans"], result["figures"]["NAME"]["recall"]) == (10, 5, 0)
    assert result["figures"]["EMAIL"]["recall"] == 1
    assert "@" not in json.dumps(result)
    file.write_text(text.replace("Jane", "Jim", 1), "utf-8")
    changed = slmtune(*command)
    assert changed.exit_code == 2 or isinstance(changed.exception, InputError)
    assert "was changed" in str(changed.exception)
    file.write_text(text, "utf-8")
    refused = slmtune("scrub", source, "--check", 10, "--seed", 7, "--check-file", file, "--json")
    assert "was not drawn" in str(refused.exception)


def test_summary_says_that_names_need_a_tagger(source: Path) -> None:
    done = slmtune("scrub", source)
    assert done.exit_code == 0, done.output
    assert "Names of people and places were not searched for (--tagger own or MODEL)." in " ".join(done.stdout.split())


def test_check_refuses_what_it_would_not_do(source: Path, tmp_path: Path) -> None:
    assert slmtune("scrub", source, "--check-file", tmp_path / "a").exit_code == 2
    assert slmtune("scrub", source, "--check", 5, "--explain").exit_code == 2
    assert slmtune("scrub", source, "--check", 5, "--json").exit_code == 2
