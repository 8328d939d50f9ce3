"""The shares of splits that a user requests, and the split that the name of a file implies."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping

from finetune.errors import InputError
from finetune.recipe.options import DEFAULT_RATIO
from finetune.records import SPLIT_WORDS, SPLITS, Split

SHARD = re.compile(r"[-_.]\d+(?:[-_.]of[-_.]\d+)?$")
DRAW_ORDER: tuple[Split, ...] = ("test", "validation", "train")


def parse_ratio(text: str | None) -> dict[Split, float]:
    """Read `train/validation/test` shares; None is the default.

    Raises:
        InputError: not three numbers from 0 to 1 that add up to 1.
    """
    text = text or DEFAULT_RATIO
    try:
        shares = [float(part) for part in text.split("/")]
    except ValueError:
        shares = []
    valid = len(shares) == len(SPLITS) and all(math.isfinite(share) and 0 <= share <= 1 for share in shares)
    if not valid or abs(sum(shares) - 1) > 1e-6:
        raise InputError(
            f"--split-ratio {text} cannot be used. Give the shares of train/validation/test, which must add up to 1, such "
            f"as {DEFAULT_RATIO}"
        )
    return dict(zip(SPLITS, shares, strict=True))


def named_split(name: str) -> Split | None:
    """The split that a relative path names (`news-train.jsonl`, `test/part-0.csv`, `data/val-00000-of-00002.parquet`).

    Only the first and the last word of each part count, so `my-test-results` names none; nor does a part whose words
    name two (`train-val.csv`, "Training before the test.csv").

    Raises:
        InputError: a folder and the file in it name two splits.
    """
    splits: set[Split] = set()
    for part in _parts(name):
        words = _words(part)
        named = {SPLIT_WORDS[word] for word in words[:1] + words[-1:] if word in SPLIT_WORDS}
        splits |= named if len(named) == 1 else set()
    return _only(splits, name)


def named_folder(name: str) -> Split | None:
    """The split that a folder of a relative path names, by its whole name: what counts for documents, which have titles.

    Raises:
        InputError: the folders name two splits.
    """
    return _only({SPLIT_WORDS[part.lower()] for part in _parts(name)[:-1] if part.lower() in SPLIT_WORDS}, name)


def _only(splits: Collection[Split], name: str) -> Split | None:
    if len(splits) > 1:
        raise InputError(f"{name} names two splits ({', '.join(sorted(splits))}). Rename it so that it names only one")
    return next(iter(splits), None)


def is_only_split(name: str) -> bool:
    """Whether a part of a relative path says nothing but the split: `test.csv`, `test/a.csv`, but not `crash-test.csv`."""
    return any(part.lower() in SPLIT_WORDS for part in _parts(name))


def rest_of(name: str) -> str:
    """A relative path without the words of splits: files that differ in these alone belong together."""
    return "/".join("-".join(word for word in _words(part) if word not in SPLIT_WORDS) for part in _parts(name))


def _parts(name: str) -> list[str]:
    """The folders of a relative path and its file, without its extension and the number of a shard."""
    *folders, file = name.strip("/").split("/")
    return [*folders, SHARD.sub("", file.rsplit(".", 1)[0] if "." in file else file)]


def _words(part: str) -> list[str]:
    return [word for word in re.split(r"[-_.\s]+", part.lower()) if word]


def shares_left(ratio: Mapping[Split, float], taken: Collection[Split], source: str) -> dict[Split, float]:
    """The shares for rows without a split: train, and the splits that the source does not name itself.

    Raises:
        InputError: no share is left for them.
    """
    shares = {split: share for split, share in ratio.items() if split == "train" or split not in taken}
    total = sum(shares.values())
    if total <= 0:
        raise InputError(f"--split-ratio leaves no split for the rows of {source}. Give train a share above 0")
    return {split: share / total for split, share in shares.items()}
