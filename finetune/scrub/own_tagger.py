"""The tagger of this project: a small encoder as an ONNX file that finds names, places and whole addresses.

`make tagger` trains it in a checkout and writes it into the package; docs/guide/privacy.md says what it learns from.
"""

from __future__ import annotations

import json
import multiprocessing
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from finetune.artifacts import sha256_of
from finetune.errors import InputError
from finetune.machine import count_cores
from finetune.scrub.recogniser import GUESSED
from finetune.scrub.span import Span, trimmed
from finetune.scrub.tagger_tokens import Floats, Tokens, find_spans, joined, read_tokens, windows

OWN = "own"
FOLDER = Path(__file__).parents[1] / "_tagger"
SETTINGS, MODEL, TOKENIZER = "tagger.json", "model.onnx", "tokenizer.json"
SURROGATES = re.compile("[\ud800-\udfff]")  # halves of characters, which no UTF-8 has
MADE_WITH = "In a checkout of slmtune, make it with: make tagger"


def own_folder(name: str) -> Path | None:
    """The folder of a tagger of this project that a name stands for; None: the name is that of something else."""
    if name == OWN:
        return FOLDER
    return Path(name) if (Path(name) / SETTINGS).is_file() else None


def describe_tagger(name: str) -> str:
    """The name of a tagger; of one of this project, with the beginning of its checksum."""
    folder = own_folder(name)
    return name if folder is None else f"{name} ({_read_settings(folder)['files'][MODEL][:12]})"


class OwnTagger:
    """A tagger in onnxruntime. It reads one piece of a text at a time: what it finds never depends on the other texts.

    Raises:
        InputError: it was not built, a file differs from what `tagger.json` says, or onnxruntime is not installed.
    """

    def __init__(self, folder: Path) -> None:
        settings = _read_settings(folder)
        try:
            import onnxruntime
        except ImportError:
            raise InputError(
                f"The tagger {folder} needs onnxruntime. Install it with: pip install 'slmtune[privacy]'"
            ) from None
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # texts are read side by side instead
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(str(folder / MODEL), options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._first, self._last = (self._tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
        self._bias, self._entities = float(settings["bias"]), frozenset(settings["entities"])
        is_worker = multiprocessing.parent_process() is not None
        self._threads = 1 if is_worker else count_cores()

    def __call__(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans of each text."""
        readable = [text if text.isascii() else SURROGATES.sub("?", text) for text in texts]
        encodings = self._tokenizer.encode_batch(readable, add_special_tokens=False)
        tokens = [read_tokens(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]
        scores = self._score_all(tokens)
        return [
            [
                trimmed(Span(kind, start, end, GUESSED, "tagger", f"the tagger, {chance:.0%} sure"), text)
                for start, end, kind, chance in find_spans(one, score, self._bias)
                if kind in self._entities and any(map(str.isalnum, text[start:end]))
            ]
            for text, one, score in zip(texts, tokens, scores, strict=True)
        ]

    def _score_all(self, tokens: Sequence[Tokens]) -> list[Floats]:
        if self._threads == 1 or len(tokens) == 1:
            return [self._score(each) for each in tokens]
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(self._score, tokens))

    def _score(self, tokens: Tokens) -> Floats:
        """The logits of all labels for each token; (tokens, labels)."""
        return joined([(start, end, self._read(tokens, start, end)) for start, end in windows(len(tokens.ids))])

    def _read(self, tokens: Tokens, start: int, end: int) -> Floats:
        ids = [self._first, *tokens.ids[start:end], self._last]
        inputs = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, len(ids)), np.int64),
            "token_type_ids": np.array([[0, *tokens.types[start:end], 0]], np.int64),
        }
        logits: Floats = self._session.run(["logits"], inputs)[0][0, 1:-1]
        return logits


def _read_settings(folder: Path) -> dict[str, Any]:
    """What `tagger.json` says, after a check of the files that it names."""
    try:
        settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"This installation has no tagger of slmtune. {MADE_WITH}. Or name a model of spaCy, such as en_core_web_sm"
        ) from None
    for name, digest in settings["files"].items():
        path = folder / name
        if not path.is_file() or sha256_of(path) != digest:
            raise InputError(f"The tagger is damaged: {path} is not the file that {SETTINGS} describes. {MADE_WITH}")
    return settings
