"""Preparation replaces personal data by the rules of flags and recipe, in rows of every kind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from finetune.cli.scaffold import new_domain
from finetune.errors import ConfigError
from finetune.scrub.secret import own_secret

from .conftest import Preparer, questions, write_jsonl

ROWS = [{"question": "Who is jane@example.com?", "answer": "Ask 84.23.10.24 or bob@example.com."}, *questions(2)]


def test_prepare_scrubs_unless_told_not_to(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "train.jsonl", ROWS)
    made = prepared(source)
    assert made.texts[:2] == ["Who is [EMAIL]?", "Ask [IP] or [EMAIL]."]
    assert made.result.scrubbed == {"EMAIL": 2, "IP": 1}
    kept = prepared(source, scrub=False)
    assert kept.texts[0] == "Who is jane@example.com?"
    assert kept.result.scrubbed == {}


def test_card_says_what_was_scrubbed(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "train.jsonl", [{"text": "Please write to jane@example.com before the end of this week."}]
    )
    assert "EMAIL (1)" in (prepared(source).corpus.path / "README.md").read_text("utf-8")
    assert "Nothing was scrubbed" in (prepared(source, scrub=False).corpus.path / "README.md").read_text("utf-8")


def test_rows_with_personal_data_can_be_dropped(prepared: Preparer, tmp_path: Path) -> None:
    made = prepared(write_jsonl(tmp_path / "train.jsonl", ROWS), scrub_policy="drop")
    assert [(drop["step"], drop["reason"]) for drop in made.drops] == [("scrub", "personal_data")]
    assert len(made.rows) == 2


def test_dates_stay_unless_they_are_asked_for(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "train.jsonl", [{"text": "The bank was founded on 3 May 1970 and has grown since."}]
    )
    assert "3 May 1970" in prepared(source).texts[0]
    assert "[DATE]" in prepared(source, scrub_find="DATE").texts[0]
    with pytest.raises(ConfigError, match=r"'DATES'\. Did you mean 'DATE'"):
        prepared(source, scrub_find="DATES")


def test_surrogates_do_not_depend_on_processes_and_no_file_holds_the_secret(
    prepared: Preparer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own_secret.cache_clear()
    rows = [
        {"text": f"Patient {n} wrote from p{n}@bank.com, twice from p{n}@bank.com today.", "pat": n % 3}
        for n in range(9)
    ]
    source = write_jsonl(tmp_path / "train.jsonl", rows)
    options = {"scrub_policy": "surrogate", "columns": {"group": "pat"}, "near_duplicates": 1}
    one, two = prepared(source, **options), prepared(source, **options, workers=2)
    assert one.texts == two.texts
    assert one.corpus.fingerprint == two.corpus.fingerprint
    assert all(len(set(re.findall(r"\S+@example\.org", text))) == 1 for text in one.texts)
    secret = own_secret()
    written = [path.read_bytes() for path in one.corpus.path.rglob("*") if path.is_file()]
    assert not [data for data in written if secret in data or secret.hex().encode() in data]
    own_secret.cache_clear()


def _domain(tmp_path: Path, **rules: object) -> str:
    folder = new_domain("ward", tmp_path / "ward")
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text("utf-8") + yaml.safe_dump({"scrub": rules}), "utf-8")
    (folder / "staff.txt").write_text("Doctor Stein\nO'Hara\n", "utf-8")
    return str(folder)


def test_recipe_brings_lists_formats_and_exceptions(prepared: Preparer, tmp_path: Path) -> None:
    formats = {"CASE": r"K-\d{4}"}
    domain = _domain(tmp_path, lists={"STAFF": "staff.txt"}, formats=formats, allow=["help@bank.com"], policy="tag")
    text = "doctor stein and O’Hara saw K-1234, not help@bank.com but joe@bank.com, on that day."
    made = prepared(write_jsonl(tmp_path / "train.jsonl", [{"text": text}]), domain=domain)
    assert made.texts == ["[STAFF] and [STAFF] saw [CASE], not help@bank.com but [EMAIL], on that day."]
    assert made.result.scrubbed == {"CASE": 1, "EMAIL": 1, "STAFF": 2}


def test_broken_format_of_a_recipe_is_refused_with_its_line(prepared: Preparer, tmp_path: Path) -> None:
    domain = _domain(tmp_path, formats={"CASE": "K-(", "EMPTY": "a*"})
    lines = (Path(domain) / "recipe.yaml").read_text("utf-8").splitlines()
    line = lines.index("    CASE: K-(") + 1
    with pytest.raises(ConfigError) as caught:
        prepared(write_jsonl(tmp_path / "train.jsonl", ROWS), domain=domain)
    assert f"recipe.yaml:{line}: scrub.formats.CASE: not a regular expression" in str(caught.value)
    assert f"line {line + 1}: scrub.formats.EMPTY" in str(caught.value)


def test_missing_list_is_named(prepared: Preparer, tmp_path: Path) -> None:
    domain = _domain(tmp_path, lists={"STAFF": "none.txt"})
    with pytest.raises(ConfigError, match=r"none\.txt: the list cannot be read"):
        prepared(write_jsonl(tmp_path / "train.jsonl", ROWS), domain=domain)
