"""Checks files for what must not leave this machine: tokens, paths and names of the machine, pickles, unknown formats."""

from __future__ import annotations

import getpass
import json
import re
import socket
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from finetune.canary_key import find_keys
from finetune.errors import CheckFailedError
from finetune.hub.metadata import WEIGHTS, read_texts

# Data formats only. A pickle or a script runs code on the reader's machine.
DATA = {".json", ".jsonl", ".md", ".parquet", ".html", ".png", ".jinja", ".txt", ".model"}
SHAREABLE = DATA | WEIGHTS
SHAREABLE_NAMES = {"LICENSE", "NOTICE", "Modelfile", "template", "params"}
PICKLE = re.compile(
    rb"\x80[\x02-\x05]|PK\x03\x04"
)  # a pickle of protocol 2 to 5, or a zip file as written by torch.save

# Vocabularies contain all kinds of fragments; they come from the base model.
VOCABULARIES = {"tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json"}

SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{36}|AKIA[0-9A-Z]{16}|sk-[A-Za-z0-9_-]{32,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
PERSONAL_PATH = re.compile(
    r"(?<![\w.:/~-])/(?:home|Users|root|tmp|var|private|mnt|media|opt|srv|scratch|Volumes)/[\w.@-]+"
    r"|(?<![A-Za-z])[A-Za-z]:[\\/]+(?:Users|Documents and Settings)[\\/]|file:///\w"
)
WHOLE_PATH = re.compile(r"(?:/[^/\s<>]+){2,}/?|[A-Za-z]:[\\/]\S+|~/\S+")
MODELFILE_WORDS = {
    "FROM",
    "TEMPLATE",
    "PARAMETER",
}  # that slmtune writes; SYSTEM and MESSAGE hold text of conversations
QUOTED_BLOCK = re.compile(r'"""(?:.|\n)*?"""')
COMMON_NAMES = {"root", "user", "admin", "ubuntu", "runner", "nobody", "test", "dev", "localhost"}


def is_shareable(name: str) -> bool:
    """Whether a file of this name has a format that slmtune pushes to and pulls from the Hub."""
    path = PurePosixPath(name)
    return path.suffix in SHAREABLE or path.name in SHAREABLE_NAMES


def check_disclosure(files: Mapping[str, Path], token: str | None = None) -> None:
    """Check the files of an artifact before they are shared.

    Raises:
        CheckFailedError: names each file and what is wrong with it, never the text itself.
    """
    problems = [f"{name} {problem}" for name, path in sorted(files.items()) for problem in _problems(name, path, token)]
    if problems:
        raise CheckFailedError(
            f"Nothing was uploaded: {'; '.join(problems)}. Remove it, or make the artifact again without it"
        )


def check_no_key(folder: Path) -> None:
    """Refuse to share anything from a folder in which a key of canaries lies, even if the key itself would not be sent.

    Raises:
        CheckFailedError: names the key.
    """
    if keys := find_keys(folder):
        raise CheckFailedError(
            f"Nothing was uploaded: {folder / keys[0]} is the key of canaries, which must stay secret. Move it out of "
            f"{folder}"
        )


def _problems(name: str, path: Path, token: str | None) -> Iterator[str]:
    if not is_shareable(name):
        yield f"is not in a shareable format ({', '.join(sorted(SHAREABLE))})"
        return
    with path.open("rb") as file:
        if PICKLE.match(file.read(4)):
            yield "is a pickle or a zip archive under another name"
            return
    try:
        yield from _disclosures(name, path, token)
    except ValueError:
        yield "is damaged: its metadata cannot be read"


def _disclosures(name: str, path: Path, token: str | None) -> Iterator[str]:
    if any(SECRET.search(text) or (token and token in text) for text in _texts(path, names=True)):
        yield "contains an access token or a private key"
    if path.suffix == ".parquet" or name in VOCABULARIES:
        return
    texts, values, private = [*_texts(path, names=False)], [*_values(path)], _own_folders(path)
    if any(PERSONAL_PATH.search(text) or any(folder in text for folder in private) for text in texts):
        yield "contains an absolute path of this machine"
    elif any(WHOLE_PATH.fullmatch(value) for value in values):
        yield "contains an absolute path"
    if (is_named := _machine_name_test()) and any(map(is_named, texts + values)):
        yield "contains the name of this machine or of its user"
    if path.name == "Modelfile" and any(line.split()[0].upper() not in MODELFILE_WORDS for line in _lines(path)):
        yield f"contains lines other than {', '.join(sorted(MODELFILE_WORDS))}, which may be text of conversations"


def _texts(path: Path, *, names: bool) -> Iterator[str]:
    """The readable text of a file: all of it, that in a file of weights, or a Parquet file's values by batch."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
            yield json.dumps(batch.to_pylist(), ensure_ascii=False, default=str)
    elif path.suffix in WEIGHTS:
        yield from read_texts(path, names=names)
    else:
        yield path.read_text("utf-8", errors="replace")


def _values(path: Path) -> Iterator[str]:
    """Every text in a file of weights, string in a JSON file or in a line of a JSON Lines file, or word of a Modelfile."""
    if path.suffix in WEIGHTS:
        yield from read_texts(path, names=False)
    elif path.name == "Modelfile":
        yield from (word for line in _lines(path) for word in line.split())
    elif path.suffix in {".json", ".jsonl"}:
        text = path.read_text("utf-8", errors="replace")
        for part in text.splitlines() if path.suffix == ".jsonl" else [text]:
            try:
                yield from _strings(json.loads(part))
            except ValueError:
                continue


def _lines(modelfile: Path) -> list[str]:
    """The lines of a Modelfile that say something, without texts in triple quotes."""
    text = QUOTED_BLOCK.sub("", modelfile.read_text("utf-8", errors="replace"))
    return [line for line in text.splitlines() if line.strip()]


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _own_folders(path: Path) -> list[str]:
    """Folders of this machine that a file could mention by accident, except short ones, which reveal nothing."""
    folders = (Path.home(), Path.cwd(), path.resolve().parent, Path(sysconfig.get_path("purelib")))
    return [str(folder) for folder in folders if len(folder.parts) > 2]


def _machine_name_test() -> Callable[[str], bool] | None:
    """A test for texts that are the name of the user or host, or contain a host name that is not an ordinary word."""
    host = socket.gethostname().split(".")[0]
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    names = {name for name in (host, user) if len(name) > 3 and name.lower() not in COMMON_NAMES}
    if not names:
        return None
    distinct = host in names and not host.isalpha()
    in_text = re.compile(rf"(?<![\w.-]){re.escape(host)}(?![\w-])") if distinct else None
    return lambda text: text in names or (in_text is not None and in_text.search(text) is not None)
