"""Showing a corpus: exact figures for small corpora, and the only place where the text of rows is shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import parquet

from finetune.artifacts import Corpus
from finetune.cli.console import to_json
from finetune.cli.render.corpus import render_view
from finetune.corpus import view as corpus_view
from finetune.corpus.lengths import Bin, count_words, histogram, measure_rows
from finetune.corpus.store import read_split
from finetune.corpus.view import CorpusView, DropCount, SourceCount, show_corpus
from finetune.errors import ArtifactError, InputError, MissingStageError, UnknownNameError
from finetune.models.chat_template import render
from finetune.models.find import find_base
from finetune.models.tokenizer import load_tokenizer
from finetune.records import SPLITS, Drop, Example, Message, Split, Task

from ..command import python, run
from ..conftest import chat
from ..corpora import write_corpus
from ..hub.local_hub import LocalHub

SECRET = "swordfish-4711"
ROWS: dict[Split, list[Example]] = {
    "train": [
        Example("a/1", chat("Up or down?", "up"), "classification", "up", ("down", "up"), None, "a", "mit"),
        Example("a/2", chat("Up or down now?", "up"), "classification", "up", ("down", "up"), None, "a", "mit"),
        Example("a/3", chat("Which way?", "down"), "classification", "down", ("down", "up"), None, "a", "mit"),
        Example("b/1", chat("Who is it?", f"It is {SECRET} of course"), "qa", source="b", license="cc0-1.0"),
    ],
    "test": [Example("b/2", (Message("assistant", "One two three."),), "text", source="b", license="cc0-1.0")],
}
DROPS = [Drop("a/8", "dedup", "duplicate"), Drop("a/9", "dedup", "duplicate"), Drop("b/9", "quality", "too_short")]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    facts = {"domain": "mine", "sources": [{"id": "b", "uri": "hf://datasets/x/b", "revision": "abc"}]}
    return write_corpus(tmp_path / "corpus", ROWS, drops=DROPS, facts=facts).path


def many(count: int, task: Task = "qa") -> list[Example]:
    return [
        Example(f"s/{n}", chat(f"What is {n}?", " ".join(["word"] * n)), task, source="s", license="mit")
        for n in range(count)
    ]


def test_every_row_and_drop_is_counted(corpus: Path) -> None:
    view = show_corpus(corpus)
    assert (view.rows, view.domain, view.fingerprint) == (5, "mine", Corpus.open(corpus).fingerprint)
    assert view.splits == {"train": 4, "validation": 0, "test": 1}
    assert view.tasks == {"classification": 3, "qa": 1, "text": 1}
    assert view.sources == (
        SourceCount("a", 3, "mit", None, None),
        SourceCount("b", 2, "cc0-1.0", "hf://datasets/x/b", "abc"),
    )
    assert view.labels == {"a": {"up": 2, "down": 1}}
    assert view.drops == (DropCount("dedup", "duplicate", 2), DropCount("quality", "too_short", 1))


def test_all_shards_of_a_split_are_counted(corpus: Path) -> None:
    """A corpus from elsewhere may have several Parquet files per split."""
    whole = parquet.read_table(corpus / "data" / "train-00000-of-00001.parquet")
    (corpus / "data" / "train-00000-of-00001.parquet").unlink()
    for number, part in enumerate((whole.slice(0, 1), whole.slice(1))):
        parquet.write_table(part, corpus / "data" / f"train-0000{number}-of-00002.parquet")
    opened = Corpus(corpus, {})
    counts, drawn, _ = corpus_view._count(opened, 9, 1)
    assert counts.total() == 5
    assert [example.id for _, example in corpus_view._read(opened, drawn.to_show)] == [
        "a/1",
        "a/2",
        "a/3",
        "b/1",
        "b/2",
    ]


# --- lengths ----------------------------------------------------------------------------------------------------------


def test_token_lengths_are_those_of_training(tiny_model: Path, tiny_corpus: Path) -> None:
    tokenizer = load_tokenizer(tiny_model, find_base(str(tiny_model)))
    opened = Corpus.open(tiny_corpus)
    rendered = [render(tokenizer, row) for split in SPLITS for row in read_split(opened, split)]
    sizes = sorted(len(row.ids) for row in rendered)
    lengths = show_corpus(tiny_corpus, model=str(tiny_model)).lengths
    assert lengths is not None
    assert (lengths.unit, lengths.tokenizer) == ("tokens", str(tiny_model))
    assert (lengths.measured, lengths.rows) == (len(sizes), len(sizes))
    assert (lengths.min, lengths.max) == (sizes[0], sizes[-1])
    assert lengths.median == sizes[(len(sizes) - 1) // 2]
    assert lengths.p95 == sizes[-(-95 * len(sizes) // 100) - 1]
    assert lengths.supervised_share == sum(sum(row.supervised) for row in rendered) / sum(sizes)
    for each in lengths.histogram:
        assert each.rows == sum(each.low <= size <= each.high for size in sizes)
    assert sum(each.rows for each in lengths.histogram) == len(sizes)


def test_shares_above_the_common_limits_are_exact(tiny_model: Path, tmp_path: Path) -> None:
    rows = [
        Example(f"t/{n}", (Message("assistant", "a" * n),), "text", source="t") for n in (510, 512, 600, 1100, 3000)
    ]
    corpus = write_corpus(tmp_path / "c", {"train": rows})
    tokenizer = load_tokenizer(tiny_model, find_base(str(tiny_model)))
    sizes = [len(render(tokenizer, row).ids) for row in rows]
    lengths = show_corpus(corpus.path, model=str(tiny_model)).lengths
    assert lengths is not None
    assert lengths.above == {limit: sum(size > limit for size in sizes) / 5 for limit in (512, 1024, 2048)}
    assert len(set(lengths.above.values())) > 1  # the texts are long enough to differ


def test_a_row_as_long_as_a_limit_is_not_above_it() -> None:
    rows = [Example(str(length), chat("q", "a"), "qa") for length in (511, 512, 513, 1024)]
    lengths = measure_rows(rows, lambda row: (int(row.id), 1), rows=4, unit="tokens", tokenizer="any")
    assert lengths is not None
    assert lengths.above == {512: 0.5, 1024: 0.0, 2048: 0.0}


def test_without_a_tokenizer_lengths_are_words_and_say_so(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for model in (None, "qwen2.5-0.5b"):
        view = show_corpus(corpus, model=model)
        assert view.lengths is not None
        assert (view.lengths.unit, view.lengths.tokenizer, view.lengths.measured) == ("words", None, 5)
        # Words of the rows: 4, 5, 3, 3 + 5, 3; answers: 1, 1, 1, 5, 3.
        assert (view.lengths.min, view.lengths.median, view.lengths.max) == (3, 4, 8)
        assert view.lengths.supervised_share == 11 / 23
        (note,) = view.notes
        assert note.startswith("Lengths are in words, not tokens.")
        assert "Length in words (5 rows)" in render_view(view)
        assert note in render_view(view)


def test_a_tokenizer_is_fetched_only_by_name_and_never_with_weights(
    tiny_model: Path, corpus: Path, local_hub: LocalHub, tmp_path: Path
) -> None:
    local_hub.serve("model", "acme/tiny", tiny_model)
    environment = os.environ | local_hub.environ(tmp_path / "home")
    program = (
        "import sys; from pathlib import Path\n"
        "from finetune.corpus.view import show_corpus; from finetune.models.find import find_base\n"
        f"view = show_corpus(Path({str(corpus)!r}), model='acme/tiny')\n"
        "assert view.lengths.unit == 'tokens', view.notes\n"
        "cached = [path.name for path in Path(sys.argv[1]).rglob('*') if path.is_file()]\n"
        "assert 'tokenizer.json' in cached and 'model.safetensors' not in cached, cached\n"
        "assert (find_base('acme/tiny').folder / 'model.safetensors').is_file()  # an incomplete folder is no model\n"
    )
    done = python("-c", program, tmp_path / "home", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr


def test_an_invalid_model_is_an_error(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="smollm2-135m"):
        show_corpus(corpus, model="smollm2-135")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="tokenizer"):
        show_corpus(corpus, model=str(tmp_path / "empty"))


def test_a_template_that_refuses_a_row_leaves_lengths_in_words(tiny_model: Path, corpus: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_model, find_base(str(tiny_model)))
    tokenizer.chat_template = "{{ raise_exception('Only for parrots') }}"
    tokenizer.save_pretrained(tmp_path / "parrot")
    view = show_corpus(corpus, model=str(tmp_path / "parrot"))
    assert view.lengths is not None
    assert view.lengths.unit == "words"
    assert "Only for parrots" in view.notes[0]


def test_histogram_bins_are_round_cover_all_and_end_with_the_tail() -> None:
    assert histogram({5: 1}) == (Bin(0, 1, 0), Bin(2, 2, 0), Bin(3, 3, 0), Bin(4, 4, 0), Bin(5, 5, 1))
    lengths = Counter(dict.fromkeys(range(1, 101), 1)) + Counter({5000: 2})
    bins = histogram(lengths)
    assert [each.high for each in bins] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 5000]
    assert [each.rows for each in bins] == [10] * 10 + [2]
    assert histogram({0: 3})[0] == Bin(0, 1, 3)
    assert histogram({}) == ()


def test_a_corpus_without_rows_is_shown(tmp_path: Path) -> None:
    view = show_corpus(write_corpus(tmp_path / "c", {}).path)
    assert (view.rows, view.lengths, view.samples) == (0, None, ())
    assert "rows" in render_view(view)
    assert measure_rows([], count_words, rows=0, unit="words", tokenizer=None) is None


# --- samples ----------------------------------------------------------------------------------------------------------


def test_the_requested_rows_of_each_task_are_shown_whole(tmp_path: Path) -> None:
    rows = [*many(50), *many(50, "chat")[48:], *ROWS["test"]]
    corpus = write_corpus(tmp_path / "c", {"train": rows[:40], "test": rows[40:]})
    view = show_corpus(corpus.path, samples=3)
    assert Counter(sample.task for sample in view.samples) == {"qa": 3, "chat": 2, "text": 1}
    texts: dict[tuple[str, str], object] = {(row.task, row.id): row.messages for row in rows}
    assert all(sample.messages == texts[sample.task, sample.id] for sample in view.samples)
    assert show_corpus(corpus.path, samples=0).samples == ()
    with pytest.raises(InputError, match="--samples -1"):
        show_corpus(corpus.path, samples=-1)


def test_the_seed_decides_what_is_shown(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", {"train": many(200)})
    samples = [[sample.id for sample in show_corpus(corpus.path, seed=seed).samples] for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]


def test_every_row_is_shown_about_equally_often(tmp_path: Path) -> None:
    opened = write_corpus(tmp_path / "c", {"train": many(10), "test": many(20)[10:]})
    frequencies = Counter(
        position for seed in range(400) for position in corpus_view._count(opened, 5, seed)[1].to_show
    )
    assert sorted(frequencies) == list(range(20))
    assert all(60 <= count <= 140 for count in frequencies.values())  # 100 expected; 4.6 standard deviations of 8.7


# --- memory -----------------------------------------------------------------------------------------------------------


def test_only_a_sample_of_a_large_corpus_is_measured_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_view, "MEASURED", 10)
    view = show_corpus(write_corpus(tmp_path / "c", {"train": many(30), "test": many(40)[30:]}).path)
    assert view.lengths is not None
    assert (view.lengths.measured, view.lengths.rows) == (10, 40)
    assert "10 rows drawn from 40" in render_view(view)


def test_rows_are_read_in_batches_and_only_from_row_groups_with_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = write_corpus(tmp_path / "c", {"train": many(100)})
    (file,) = opened.files("train")
    parquet.write_table(parquet.read_table(file), file, row_group_size=20)
    read: list[int] = []
    iter_batches = parquet.ParquetFile.iter_batches

    def spy(self: parquet.ParquetFile, *args: object, **options: object) -> Iterator[object]:
        for batch in iter_batches(self, *args, **options):
            read.append(len(batch))
            yield batch

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", spy)
    monkeypatch.setattr(corpus_view, "READ_AT_ONCE", 8)
    monkeypatch.setattr(corpus_view, "COUNTED_AT_ONCE", 16)
    assert [example.id for _, example in corpus_view._read(opened, [3, 41, 59])] == ["s/3", "s/41", "s/59"]
    assert max(read) == 8
    assert sum(read) == 40  # two of five row groups
    read.clear()
    small = corpus_view._count(opened, 3, 7)
    assert max(read) == 16
    monkeypatch.setattr(corpus_view, "COUNTED_AT_ONCE", 1000)
    assert corpus_view._count(opened, 3, 7) == small  # the size of a batch changes nothing


def test_show_loads_no_torch() -> None:
    heavy = {"torch", "transformers", "datasets", "peft", "huggingface_hub"}
    program = f"import sys, finetune.corpus.view, finetune.cli.render.corpus; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# --- folders that are not a corpus ------------------------------------------------------------------------------------


def test_a_folder_that_is_not_a_corpus_is_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingStageError, match="slmtune prepare"):
        show_corpus(tmp_path / "nothing")
    (corpus / "drops.jsonl").write_text("{}\n", "utf-8")
    with pytest.raises(ArtifactError, match=r"drops\.jsonl"):
        show_corpus(corpus)


# --- on a terminal ----------------------------------------------------------------------------------------------------


def test_text_has_every_figure(corpus: Path) -> None:
    text = render_view(show_corpus(corpus), encoding="utf-8")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert f"corpus {corpus}" in lines
    for figure in ("train 4", "test 1", "classification 3", "a (mit) 3", "b (cc0-1.0) 2", "up 2", "down 1"):
        assert any(line.startswith(figure + " █") for line in lines), figure
    assert "validation 0" in lines
    assert any(line.startswith("dedup: duplicate 2 █") for line in lines)
    assert any(line.startswith("supervised 47.8% of all words") for line in lines)
    assert SECRET in text


def test_text_is_plain_if_the_terminal_has_no_blocks(corpus: Path) -> None:
    view = show_corpus(corpus)
    text = render_view(view, encoding="ascii")
    assert text.isascii()
    assert "train       4  " + "#" * 30 in text
    assert "█" not in render_view(view, encoding="latin-1")
    assert "█" in render_view(view, encoding="utf-8")


def test_row_text_cannot_control_the_terminal(tmp_path: Path) -> None:
    text = "\x1b]0;title\x07 red\x1b[31m \u202eback \x9b2J\r over"
    label = "[bold]\n:smile:\x1b[0m[/x]"
    row = Example("x/1", chat(text, "ok\nsecond line"), "classification", label, source="x\x1b[2J", license="mit")
    text = render_view(show_corpus(write_corpus(tmp_path / "c", {"train": [row]}).path), encoding="utf-8")
    assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e"} & set(text)
    assert "\\x1b]0;title\\x07 red\\x1b[31m \\u202eback" in text
    assert "[bold] :smile:\\x1b[0m[/x]" in text
    assert "\n               second line" in text


def test_long_rows_and_many_labels_are_cut_on_the_terminal_only(tmp_path: Path) -> None:
    rows = [
        Example(f"x/{n}", chat("question " * 500, f"label {n}"), "classification", f"label {n}", source="x")
        for n in range(30)
    ]
    view = show_corpus(write_corpus(tmp_path / "c", {"train": rows}).path, samples=1)
    text = render_view(view, encoding="utf-8")
    assert "3,500 more characters" in " ".join(text.split())
    assert "(10 other labels)" in " ".join(text.split())
    assert len(view.labels["x"]) == 30
    assert len(to_json(view)["samples"][0]["messages"][0]["content"]) == 4500


@pytest.mark.parametrize("coding", ["utf-8", "ascii"])
def test_command_shows_a_corpus_on_any_terminal(tmp_path: Path, coding: str) -> None:
    rows = [Example("ü/1", chat("Größe?", "日本語"), "qa", source="ü", license="mit")]
    corpus = write_corpus(tmp_path / "c", {"train": rows})
    done = run("show", corpus.path, "--offline", cwd=tmp_path, env={"PYTHONIOENCODING": coding})
    assert done.returncode == 0, done.stderr
    assert ("日本語" in done.stdout) == (coding == "utf-8")
    plain = run("show", corpus.path, "--offline", "--json", cwd=tmp_path)
    assert json.loads(plain.stdout)["tasks"] == {"qa": 1}


def test_view_is_json(corpus: Path) -> None:
    view: CorpusView = show_corpus(corpus)
    data = to_json(view)
    assert data["splits"] == {"train": 4, "validation": 0, "test": 1}
    assert data["lengths"]["unit"] == "words"
    assert set(data["lengths"]["above"]) == {"512", "1024", "2048"}
    assert {"low", "high", "rows"} == set(data["lengths"]["histogram"][0])
