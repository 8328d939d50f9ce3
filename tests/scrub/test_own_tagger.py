"""The tagger of this project: places in the text, windows, and what it says if it is missing or damaged."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from finetune.artifacts import sha256_of
from finetune.errors import InputError
from finetune.prepare import PrepareRequest, prepare
from finetune.scrub import Scrubber, describe_tagger, make_rules
from finetune.scrub.own_tagger import OwnTagger
from finetune.scrub.tagger_tokens import LABELS, WINDOW, joined, windows

VOCABULARY = {
    **dict.fromkeys(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "word", ".", ",", "may", "12"), "O"),
    **{"jose": "B-NAME", "ga": "I-NAME", "##rcia": "I-NAME", "zurich": "B-LOCATION", "acme": "B-ORGANISATION"},
    **{"lange": "B-ADDRESS", "gasse": "I-ADDRESS", "7": "I-ADDRESS"},
    **dict.fromkeys(("73", "448", "266", "785", "8949"), "I-ADDRESS"),
    **dict.fromkeys(("(", ";", "ca", "90210"), "I-ADDRESS"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real ONNX file that gives each token of a vocabulary one label, and `may` a name if it has a capital."""
    folder = tmp_path_factory.mktemp("tagger")
    labels = np.full((len(VOCABULARY), len(LABELS)), 0, np.float32)
    for token, label in enumerate(VOCABULARY.values()):
        labels[token, LABELS.index(label)] = 9
    labels[list(VOCABULARY).index("may")] = 0
    writing = np.zeros((6, len(LABELS)), np.float32)
    writing[[0, 3, 4], 0] = 3  # small letters, or the beginning of a line: rather nothing
    writing[1, LABELS.index("B-NAME")] = 3  # a capital within a line
    nodes = [
        helper.make_node("Gather", ["labels", "input_ids"], ["one"]),
        helper.make_node("Gather", ["writing", "token_type_ids"], ["two"]),
        helper.make_node("Add", ["one", "two"], ["logits"]),
        helper.make_node("Identity", ["attention_mask"], ["mask"]),
    ]
    sizes = ["batch", "tokens"]
    names = ("input_ids", "attention_mask", "token_type_ids")
    graph = helper.make_graph(
        nodes,
        "lexicon",
        [helper.make_tensor_value_info(name, TensorProto.INT64, sizes) for name in names],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [*sizes, len(LABELS)]),
            helper.make_tensor_value_info("mask", TensorProto.INT64, sizes),
        ],
        [numpy_helper.from_array(labels, "labels"), numpy_helper.from_array(writing, "writing")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx"
    )
    tokenizer = Tokenizer(models.WordPiece({token: n for n, token in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    files = {name: sha256_of(folder / name) for name in ("model.onnx", "tokenizer.json")}
    settings = {"bias": 1.0, "entities": ["NAME", "LOCATION", "ADDRESS"], "files": files}
    (folder / "tagger.json").write_text(json.dumps(settings), "utf-8")
    return folder


def found(folder: Path, text: str) -> list[tuple[str, str]]:
    return [(span.entity, text[span.start : span.end]) for span in OwnTagger(folder)([text])[0]]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("word José García, word Zürich.", [("NAME", "José García"), ("LOCATION", "Zürich")]),
        ("😀 👩‍👩‍👧 José García\r\nword ZÜRICH", [("NAME", "José García"), ("LOCATION", "ZÜRICH")]),
        ("jose\u0301 garci\u0301a word", [("NAME", "jose\u0301 garci\u0301a")]),
        ("\ud83d José word", [("NAME", "José")]),
        ("Lange Gasse 7\nJosé", [("ADDRESS", "Lange Gasse 7"), ("NAME", "José")]),
        ("José José word", [("NAME", "José"), ("NAME", "José")]),
        ("word may word May word\nMay word Acme", [("NAME", "May")]),
        ("word. (Lange Gasse 7; word ; word", [("ADDRESS", "Lange Gasse 7")]),
        ("", []),
        (" \n\t", []),
    ],
)
def test_spans_lie_where_the_text_has_them(folder: Path, text: str, spans: list[tuple[str, str]]) -> None:
    assert found(folder, text) == spans


def test_a_text_of_any_length_is_read_whole_and_alone(folder: Path) -> None:
    long = "word " * 1000 + "José García " + "word " * 300 + "Zürich"
    assert found(folder, long) == [("NAME", "José García"), ("LOCATION", "Zürich")]
    texts = ["José", long, "", "word Zürich"]
    assert OwnTagger(folder)(texts) == [OwnTagger(folder)([text])[0] for text in texts]


@pytest.mark.parametrize("count", [1, WINDOW, WINDOW + 1, 5 * WINDOW])
def test_windows_give_each_token_one_score(count: int) -> None:
    parts = [(start, end, np.arange(start, end, dtype=np.float32)[:, None]) for start, end in windows(count)]
    assert joined(parts)[:, 0].tolist() == list(range(count))


def test_addresses_of_tagger_and_patterns_become_one(folder: Path) -> None:
    scrubber = Scrubber(make_rules(None, policy=None, find="all", otherwise="all", tagger=str(folder)))
    counts: Counter[str] = Counter()
    assert scrubber.scrub("word José, Lange Gasse 7, Zürich", counts) == "word [NAME], [ADDRESS], [LOCATION]"
    assert counts == {"NAME": 1, "ADDRESS": 1, "LOCATION": 1}
    assert {"NAME", "LOCATION", "ADDRESS"} < set(scrubber.kinds)
    assert "ORGANISATION" not in scrubber.kinds
    assert describe_tagger(str(folder)).endswith(f"({sha256_of(folder / 'model.onnx')[:12]})")


def test_a_postal_code_in_an_address_is_a_part_of_it(folder: Path) -> None:
    scrubber = Scrubber(make_rules(None, policy=None, find="all", otherwise="all", tagger=str(folder)))
    assert scrubber.scrub("Lange Gasse 7, CA 90210\nword", Counter()) == "[ADDRESS], [ADDRESS]\nword"
    assert scrubber.scrub("word CA 90210", Counter()) == "word [ADDRESS]"
    only = Scrubber(make_rules(None, policy=None, find="ZIP", otherwise="all", tagger=str(folder)))
    assert only.scrub("Lange Gasse 7, CA 90210\nword", Counter()) == "Lange Gasse 7, CA [ZIP]\nword"


@pytest.mark.parametrize("number", ["73 448 266", "785 8949"])
def test_telephone_numbers_are_cut_from_addresses_of_the_tagger(folder: Path, number: str) -> None:
    """Even where a pattern knows a part of the address, and even if the number has the form of a figure."""
    scrubber = Scrubber(make_rules(None, policy=None, find="all", otherwise="all", tagger=str(folder)))
    counts: Counter[str] = Counter()
    assert scrubber.scrub(f"Lange Gasse 7\n{number}\nword", counts) == "[ADDRESS]\n[PHONE]\nword"
    only = Scrubber(make_rules(None, policy=None, find="ADDRESS", otherwise="all", tagger=str(folder)))
    assert only.scrub(f"Lange Gasse 7\n{number}\nword", counts) == "[ADDRESS]\nword"


def test_damaged_and_missing_taggers_are_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"else")
    with pytest.raises(InputError, match=r"damaged: .*model.onnx is not the file .* make tagger"):
        OwnTagger(tmp_path)
    monkeypatch.setattr("finetune.scrub.own_tagger.FOLDER", tmp_path / "nothing")
    with pytest.raises(
        InputError, match=r"has no tagger of slmtune\. In a checkout of slmtune, make it with: make tagger"
    ):
        Scrubber(make_rules(None, policy=None, find="all", otherwise="all", tagger="own")).find("José")


def test_an_interrupted_preparation_begins_again_if_the_tagger_changed(folder: Path, tmp_path: Path) -> None:
    tagger = shutil.copytree(folder, tmp_path / "tagger")
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(f'{{"text": "word {number} José García"}}\n' for number in range(20)), "utf-8")
    request = PrepareRequest(
        tmp_path / "out", sources=(str(source),), tagger=str(tagger), quality=False, license="cc0-1.0"
    )

    def stages_until(last: str | None) -> set[str]:
        stages = set()

        def on_progress(stage: str, *_: object) -> None:
            stages.add(stage)
            if stage == last:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            prepare(request, on_progress)
        return stages

    assert "read" in stages_until("compare")
    assert "read" not in stages_until("compare")
    settings = json.loads((tagger / "tagger.json").read_text("utf-8"))
    (tagger / "tagger.json").write_text(json.dumps({**settings, "bias": 2.0}), "utf-8")
    assert "read" in stages_until(None)
