"""API keys: how they are written in a file or the environment, and that none of them shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.cli.arguments import read_api_keys
from finetune.errors import InputError
from finetune.serve import ApiKey
from finetune.serve.api.keys import VARIABLE, KeyRing, read_keys

from ..command import run


def test_keys_have_names_or_are_numbered_by_line() -> None:
    text = "# for the team\n\nalice abc\n  xyz  \nci\tq/=+\n"
    assert read_keys(text, "key") == (ApiKey("alice", "abc"), ApiKey("key4", "xyz"), ApiKey("ci", "q/=+"))
    assert read_keys("alice abc, bob xyz", VARIABLE) == (ApiKey("alice", "abc"), ApiKey("bob", "xyz"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no key in keys.txt"),
        (" \n# only a comment\n", "no key in keys.txt"),
        ("good\na b hidden", "Line 2 of keys.txt"),
        ("schlüssel-hidden", "Line 1 of keys.txt"),
        ("na/me hidden", "Line 1 of keys.txt"),
        ("a hidden\nb hidden", "the same key"),
        ("a hidden1\na hidden2", "the same name"),
    ],
)
def test_a_line_that_is_no_key_is_named_without_its_text(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        read_keys(text, "keys.txt")
    assert "hidden" not in str(caught.value)


def test_only_whole_keys_are_recognised() -> None:
    ring = KeyRing([ApiKey("alice", "abc"), ApiKey("bob", "xyz")])
    assert [ring.name_of(value) for value in (b"abc", b"xyz", b"ab", b"abcd", b"", b"\xff")] == ["alice", "bob"] + [
        None
    ] * 4


def test_a_key_is_not_printed() -> None:
    assert "abc" not in repr(ApiKey("alice", "abc"))


def test_keys_come_from_the_file_or_else_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text("alice abc\n", "utf-8")
    monkeypatch.delenv(VARIABLE, raising=False)
    assert read_api_keys(None) == ()
    monkeypatch.setenv(VARIABLE, "bob xyz")
    assert read_api_keys(None) == (ApiKey("bob", "xyz"),)
    assert read_api_keys(tmp_path / "keys") == (ApiKey("alice", "abc"),)


def test_command_refuses_a_file_without_keys(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n", "utf-8")
    for name, problem in (("empty", "There is no key in empty"), ("none", "No such file")):
        refused = run("serve", "a=b", "--api-key-file", name, cwd=tmp_path)
        assert refused.returncode == 2
        assert problem in refused.stderr
