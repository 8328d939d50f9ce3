"""Rows that give away an evaluation set are found, wherever they hide, and ordinary rows are left alone."""

from __future__ import annotations

import json
import os
import pickle
import string
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import ConfigError, InputError
from finetune.prepare.decontaminate.build import DENSE_WORDS, MOST_ITEMS, WINDOW, build_index
from finetune.prepare.decontaminate.eval_index import QUESTION, EvalIndex, EvalItem, Match, merge_indexes
from finetune.prepare.decontaminate.grams import GRAM, SHORTEST_GRAM, split_words
from finetune.prepare.decontaminate.verdict import MOST_ROWS, Hit, Verdict, find_hits, open_evals
from finetune.recipe import DomainRecipe, load_domain
from finetune.recipe.strict import validate

ROOT = Path(__file__).parents[3]

LEAK = (
    "Does a night shift of more than ten hours raise the blood pressure of nurses who work in the emergency rooms of "
    "large city hospitals?"
)
ANSWER = "Long night shifts were linked to a small rise in systolic pressure, which had gone after two days of rest."
FILLER = (
    "The committee met on a rainy Tuesday and spoke for hours about chairs, lamps and the price of printing paper. "
)
TWEET = "$ACME - Acme Rail cuts its outlook after strike https://t.co/aaaaaaa"


def index_of(*items: EvalItem, name: str = "exam") -> EvalIndex:
    return build_index(name, items)


def match_row(index: EvalIndex, question: str, answer: str) -> tuple[Match, ...]:
    return tuple(match for _, match in index.match_rows([question], [answer]))


def judge(index: EvalIndex, *rows: tuple[str, str]) -> Verdict:
    found = index.match_rows([question for question, _ in rows], [answer for _, answer in rows])
    return find_hits(index, found, len(rows))


def rows_of(verdict: Verdict) -> tuple[int, ...]:
    return tuple(sorted({hit.row for hit in verdict.hits}))


def rows_hit(items: Sequence[EvalItem], *questions: str) -> tuple[int, ...]:
    return rows_of(judge(index_of(*items), *((question, "") for question in questions)))


# --- what is found ----------------------------------------------------------------------------------------------------


def test_a_leak_inside_a_long_text_is_found_and_named() -> None:
    index = index_of(EvalItem("q1", "Something else entirely is asked in this item, is it not?"), EvalItem("q7", LEAK))
    verdict = judge(index, (FILLER * 20, "no"), (FILLER * 9 + LEAK + FILLER * 9, "yes"))
    assert verdict.hits == (Hit(row=1, eval_set="exam", item="q7", field="question", overlap=1.0),)
    assert rows_of(verdict) == (1,)


@pytest.mark.parametrize(
    "copy",
    [
        LEAK.upper(),
        LEAK.replace(" ", "\n"),
        "**" + LEAK.replace(",", "").replace(" of ", ' "of" ') + "**",
        LEAK.replace("fi", "ﬁ").replace("night", "ｎｉｇｈｔ"),
    ],
    ids=["case", "line breaks", "punctuation", "compatibility characters"],
)
def test_formatting_hides_no_copy(copy: str) -> None:
    assert rows_hit([EvalItem("q", LEAK)], copy) == (0,)


def test_a_paraphrase_is_not_a_copy() -> None:
    other = (
        "Is the blood pressure of nurses in emergency rooms of big hospitals in cities raised by working nights for "
        "longer than ten hours?"
    )
    assert rows_hit([EvalItem("q", LEAK)], other) == ()


def test_twelve_words_in_a_row_are_no_copy_and_thirteen_are() -> None:
    words = LEAK.split()
    assert rows_hit([EvalItem("q", LEAK)], " ".join(words[3:15]) + " " + FILLER) == ()
    assert rows_hit([EvalItem("q", LEAK)], " ".join(words[3:16]) + " " + FILLER) == (0,)


def test_overlap_is_the_share_of_the_items_grams() -> None:
    words = [f"word{number}" for number in range(32)]  # 20 grams
    index = index_of(EvalItem("q", " ".join(words)))
    verdict = judge(index, (" ".join(words[:17]), ""), (" ".join(words), ""), (" ".join(words[:13]), ""))
    assert [hit.overlap for hit in verdict.hits] == [5 / 20, 1.0, 1 / 20]


def test_questions_answers_and_contexts_are_found_separately_in_either_text_of_a_row() -> None:
    index = index_of(EvalItem("q", LEAK, ANSWER, FILLER))
    rows = [(LEAK, "?"), ("?", LEAK), (ANSWER, "?"), ("?", ANSWER), (f"{FILLER}\n\n{LEAK}", ANSWER)]
    found = [(hit.row, hit.field) for hit in judge(index, *rows).hits]
    assert found[:4] == [(0, "question"), (1, "question"), (2, "answer"), (3, "answer")]
    assert found[4:] == [(4, "question"), (4, "answer"), (4, "context")]


def test_no_gram_runs_from_question_to_answer_or_from_row_to_row() -> None:
    words = LEAK.split()[:24]
    index = index_of(EvalItem("q", " ".join(words)))
    first, second = " ".join(words[:12]), " ".join(words[12:])
    assert rows_of(judge(index, (f"{first} {second}", ""))) == (0,)
    assert judge(index, (first, second), ("", ""), (second, first), (second, "")).hits == ()


# --- short texts and tweets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copy",
    [
        "$ACME - Acme Rail cuts its outlook after strike https://t.co/bbbbbbb",
        "$ACMX $ZZ.A Acme Rail cuts its outlook after strike www.example.com/x?y=1",
        "Acme Rail cuts its outlook after strike",
        "RT @newsdesk: Acme Rail cuts its #outlook after #strike",
        "Acme Rail cuts its outlook after strike… @newsdesk",
    ],
    ids=["link", "ticker", "neither", "retweet", "mention"],
)
def test_a_tweet_is_found_with_other_links_tickers_and_mentions(copy: str) -> None:
    assert len(split_words(TWEET)) < SHORTEST_GRAM
    assert rows_hit([EvalItem("t", TWEET)], copy) == (0,)


def test_a_tweet_that_is_little_but_its_ticker_keeps_it() -> None:
    item = EvalItem("t", "$ACME upgraded to Buy")
    assert rows_hit([item], "$OTHR upgraded to Buy", "$acme upgraded to BUY! https://t.co/c") == (1,)


def test_amounts_of_money_are_no_tickers() -> None:
    item = EvalItem("t", "Acme Rail pays $30 million for a depot")
    assert rows_hit([item], "Acme Rail pays $90 million for a depot", "Acme Rail pays $30 million for a depot") == (1,)


def test_below_eight_words_only_the_whole_text_counts() -> None:
    item = EvalItem("q", "What are the symptoms of cataract?")
    longer = "What are the symptoms of cataract and cardiomyopathy?"
    assert rows_hit([item], longer, "what are the symptoms of CATARACT") == (1,)


def test_from_eight_words_on_a_short_text_is_found_inside_others() -> None:
    item = EvalItem("q", "Which nerve is most often hurt at the elbow?")
    assert rows_hit([item], f"Question: which nerve is most often hurt at the elbow {FILLER}") == (0,)


def test_characters_are_the_words_of_scripts_without_blanks() -> None:
    item = EvalItem("q", "糖尿病患者每天应该检查几次血糖水平才算安全")
    assert rows_hit(
        [item], "请问:糖尿病患者每天应该检查几次血糖水平才算安全?谢谢。", "高血压患者每天应该量几次血压"
    ) == (0,)


@pytest.mark.parametrize("label", ["yes", "bullish", "Maybe.", "See your doctor.", "A", "Option B is right"])
def test_labels_and_short_answers_never_match(label: str) -> None:
    index = index_of(EvalItem("q", LEAK, label))
    assert match_row(index, "An unrelated question about lamps and chairs", label) == ()
    assert match_row(index, label, label) == ()


def test_an_answer_of_two_items_is_a_stock_answer_and_never_matches() -> None:
    stock = "Please speak to your doctor or pharmacist before you take any medicine that was not prescribed for you."
    items = [EvalItem(str(number), f"{LEAK} Part {number}.", stock) for number in range(2)]
    assert judge(index_of(*items), ("Unrelated?", stock)).hits == ()
    assert rows_of(judge(index_of(items[0]), ("Unrelated?", stock))) == (0,)


# --- boilerplate ------------------------------------------------------------------------------------------------------

PHRASE = "the aim of this study was to find out whether the treatment in question had any effect on"


def test_a_phrase_of_many_rows_does_not_count_and_is_reported() -> None:
    index = index_of(EvalItem("q", f"In our ward {PHRASE} how long elderly patients with broken hips stayed in bed."))
    others = [(f"Report {number}: {PHRASE} crop {number} in a dry summer.", "") for number in range(MOST_ROWS)]
    few = judge(index, *others)
    assert len(rows_of(few)) == MOST_ROWS
    many = judge(index, *others, (f"Report: {PHRASE} fish.", ""), (index.ids[0], ""))
    assert many.hits == ()
    grams = len(split_words(PHRASE)) - GRAM + 1
    assert many.boilerplate == grams


def test_a_leak_among_boilerplate_is_still_found_and_its_overlap_counts_telling_grams_only() -> None:
    item = EvalItem("q", f"{PHRASE} how long elderly patients with broken hips stayed in bed after their operation")
    rows = [(f"Report {number}: {PHRASE} crops.", "") for number in range(MOST_ROWS + 1)]
    tail = " ".join(item.question.split()[-14:])
    verdict = judge(index_of(item), *rows, (f"Once more: {tail}", ""))
    assert rows_of(verdict) == (MOST_ROWS + 1,)
    grams, boiler = len(split_words(item.question)) - GRAM + 1, len(split_words(PHRASE)) - GRAM + 1
    assert verdict.hits[0].overlap == pytest.approx(2 / (grams - boiler))


def test_a_whole_question_is_a_leak_however_often_it_is_repeated() -> None:
    rows = [(f"Prompt {number}. {LEAK} Answer briefly.", "") for number in range(5 * MOST_ROWS)]
    assert len(rows_of(judge(index_of(EvalItem("q", LEAK)), *rows))) == len(rows)
    tweets = [(f"{TWEET}{number}", "") for number in range(5 * MOST_ROWS)]
    assert len(rows_of(judge(index_of(EvalItem("t", TWEET)), *tweets))) == len(tweets)


def test_a_greeting_that_many_rows_open_with_is_no_leak() -> None:
    index = index_of(EvalItem("q", "Hello there!"))
    assert rows_of(judge(index, ("hello there", "Hi."))) == (0,)
    assert judge(index, *[("hello there", f"Hi {number}.") for number in range(MOST_ROWS + 1)]).hits == ()


def test_a_large_corpus_allows_a_share_of_its_rows() -> None:
    index = index_of(EvalItem("q", f"In our ward {PHRASE} how long elderly patients with broken hips stayed in bed."))
    found = index.match_rows([f"Report {number}: {PHRASE} crops." for number in range(40)], [""] * 40)
    assert find_hits(index, found, 1_000).hits == ()
    assert len(find_hits(index, found, 1_000_000).hits) == 40


def test_an_instruction_of_many_items_is_not_indexed() -> None:
    instruction = (
        "Read the following news item with care and then say whether it is good or bad for those who hold shares."
    )
    items = [EvalItem(str(number), f"{instruction} N{number}") for number in range(MOST_ITEMS[QUESTION] + 1)]
    index = index_of(*items)
    assert judge(index, (f"{instruction} Something quite different.", "")).hits == ()
    assert index.sets[0].common == len(split_words(instruction)) - GRAM + 1
    assert rows_hit(items[:-1], f"{instruction} Something quite different.") == (0,)


def test_a_context_with_many_questions_stays_indexed() -> None:
    items = [EvalItem(str(number), f"Question number {number}?", "", FILLER) for number in range(30)]
    verdict = judge(index_of(*items), (f"A story. {FILLER}", ""))
    assert {hit.field for hit in verdict.hits} == {"context"}
    assert len(verdict.hits) == 30


# --- several sets, files ----------------------------------------------------------------------------------------------


def test_merged_sets_keep_their_names_and_items() -> None:
    merged = merge_indexes([index_of(EvalItem("1", LEAK)), index_of(EvalItem("1", ANSWER), name="other")])
    assert [(hit.eval_set, hit.item) for hit in judge(merged, (ANSWER, ""), (LEAK, "")).hits] == [
        ("other", "1"),
        ("exam", "1"),
    ]


def test_two_sets_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="Two eval sets are called exam"):
        merge_indexes([index_of(EvalItem("1", LEAK)), index_of(EvalItem("1", ANSWER))])


def test_a_set_without_items_or_with_an_id_twice_is_refused() -> None:
    with pytest.raises(InputError, match="exam has no items"):
        index_of()
    with pytest.raises(InputError, match="whose id is not unique"):
        index_of(EvalItem("1", LEAK), EvalItem("1", ANSWER))


def test_a_saved_index_is_the_same_and_holds_no_text(tmp_path: Path) -> None:
    index = merge_indexes(
        [index_of(EvalItem("a", LEAK, ANSWER, FILLER)), index_of(EvalItem("b", TWEET), name="tweets")]
    )
    index.save(tmp_path / "deep" / "one.npz")
    loaded = EvalIndex.load(tmp_path / "deep" / "one.npz")
    loaded.save(tmp_path / "two.npz")
    content = (tmp_path / "two.npz").read_bytes()
    assert content == (tmp_path / "deep" / "one.npz").read_bytes()
    rows = [(LEAK, ANSWER), (FILLER, TWEET)]
    assert judge(loaded, *rows) == judge(index, *rows)
    assert not [word for word in ("nurses", "systolic", "committee", "outlook") if word.encode() in content]


def test_an_index_travels_to_worker_processes() -> None:
    index = index_of(EvalItem("q", LEAK))
    copy = pickle.loads(pickle.dumps(index))
    assert match_row(copy, LEAK, "") == match_row(index, LEAK, "") != ()


def _members(index: EvalIndex) -> dict[str, Any]:
    header = {"format": "slmtune-eval-index", "version": 1, "sets": [["exam", 1, 0]], "ids": ["q"]}
    return {
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        "keys": index.keys,
        "items": index.items.astype(np.uint16),
        "fields": index.fields,
        "lengths": index.lengths,
    }


def _header(**changes: object) -> np.ndarray:
    whole = {"format": "slmtune-eval-index", "version": 1, "sets": [["exam", 1, 0]], "ids": ["q"], **changes}
    return np.frombuffer(json.dumps(whole).encode(), np.uint8)


KEYS = len(index_of(EvalItem("q", LEAK)).keys)
HOSTILE: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "pickled objects": ({"keys": np.array([{"a": 1}], object)}, "keys is not a row of uint64"),
    "another kind of numbers": ({"keys": np.zeros(KEYS, np.float64)}, "keys is not a row of uint64"),
    "a table": ({"keys": np.zeros((KEYS, 1), np.uint64)}, "keys is not a row of uint64"),
    "another byte order": ({"keys": np.zeros(KEYS, ">u8")}, "keys is not a row of uint64"),
    "columns of different lengths": ({"fields": np.zeros(1, np.uint8)}, "differ in length"),
    "items that are not there": ({"items": np.full(KEYS, 1, np.uint16)}, "points at items"),
    "fields that are not there": ({"fields": np.full(KEYS, 3, np.uint8)}, "points at items or fields"),
    "lengths that are not there": ({"lengths": np.full(KEYS, 14, np.uint8)}, "points at items or fields"),
    "keys out of order": ({"keys": np.arange(KEYS, 0, -1).astype(np.uint64)}, "not in order"),
    "a header that is no JSON": ({"header": np.frombuffer(b"{" * 9, np.uint8)}, "header cannot be read"),
    "a header that is a list": ({"header": np.frombuffer(b"[]", np.uint8)}, "header cannot be read"),
    "a header nested too deep": ({"header": np.frombuffer(b"[" * 200_000, np.uint8)}, "header cannot be read"),
    "another version": ({"header": _header(version=2)}, "another version"),
    "wrong counts": ({"header": _header(sets=[["exam", 2, 0]])}, "do not have the items"),
    "negative counts": ({"header": _header(sets=[["exam", 2, 0], ["more", -1, 0]])}, "not numbers"),
    "ids that are no text": ({"header": _header(ids=[["q"]])}, "not text"),
}


@pytest.mark.parametrize(("change", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_refused(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    index = index_of(EvalItem("q", LEAK))
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    np.savez(good, **_members(index))
    assert match_row(EvalIndex.load(good), LEAK, "") == match_row(index, LEAK, "")
    np.savez(bad, **(_members(index) | change))
    with pytest.raises(InputError, match=rf"bad\.npz is damaged or is not the index .*{reason}.*index_eval_set\.py"):
        EvalIndex.load(bad)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.npz"
    index_of(EvalItem("q", LEAK)).save(path)
    whole = path.read_bytes()
    place = whole.index(b"'shape': (") + len(b"'shape': (")
    claims_more = whole[:place] + b"9" + whole[place + 1 :]
    for damaged in (b"", b"text", whole[: len(whole) // 2], whole[:-30], claims_more, whole.replace(b"keys", b"kays")):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            EvalIndex.load(path)


@given(st.data())
def test_no_damage_is_anything_but_an_input_error(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "index.npz"
        index_of(EvalItem("q", LEAK)).save(path)
        content = bytearray(path.read_bytes())
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
            content[place] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        with suppress(InputError):
            match_row(EvalIndex.load(path), LEAK, "")


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _members(index_of(EvalItem("q", LEAK))):
            archive.writestr(f"{name}.npy", b"\0" * 10_000_000)
    with pytest.raises(InputError, match="compressed or too large"):
        EvalIndex.load(path)


def test_a_header_that_claims_terabytes_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "huge.npz"
    np.savez(path, **_members(index_of(EvalItem("q", LEAK))))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    old = f"({KEYS},), }}               ".encode()
    assert old in members["keys.npy"]
    members["keys.npy"] = members["keys.npy"].replace(old, b"(999999999999,), }".ljust(len(old)))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="the array keys is not a row of uint64"):
        EvalIndex.load(path)


# --- recipes ----------------------------------------------------------------------------------------------------------


def _domain(tmp_path: Path, **changes: str) -> str:
    recipe = (ROOT / "datasets" / "finance" / "recipe.yaml").read_text("utf-8")
    for old, new in changes.items():
        assert old in recipe
        recipe = recipe.replace(old, new)
    (tmp_path / "recipe.yaml").write_text(recipe, "utf-8")
    return str(tmp_path)


def test_a_missing_eval_set_is_an_error_that_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"eval set tfns of the domain finance is not at .*tfns\.npz.* Install"
    ) as raised:
        open_evals(load_domain(_domain(tmp_path)))
    assert str(tmp_path / "evals" / "tfns.npz") in str(raised.value)


def test_an_index_of_another_set_is_an_error(tmp_path: Path) -> None:
    index_of(EvalItem("q", LEAK)).save(tmp_path / "evals" / "tfns.npz")
    with pytest.raises(InputError, match="is the index of exam, not of tfns"):
        open_evals(load_domain(_domain(tmp_path)))


def test_a_recipe_without_eval_sets_has_nothing_to_compare_with(tmp_path: Path) -> None:
    domain = load_domain(_domain(tmp_path))
    recipe = domain.recipe.model_copy(update={"evals": ()})
    assert open_evals(type(domain)(recipe, domain.folder)) is None


def test_ids_of_eval_sets_are_unique() -> None:
    recipe = load_domain("finance").recipe
    twice = recipe.model_dump() | {"evals": [recipe.evals[0].model_dump()] * 2}
    with pytest.raises(ConfigError, match="2 evals share the id 'tfns'"):
        validate(DomainRecipe, twice, "recipe.yaml")


@pytest.mark.parametrize(("domain", "name", "items"), [("finance", "tfns", 2388), ("health", "pubmedqa", 500)])
def test_bundled_indexes_cover_their_sets(domain: str, name: str, items: int) -> None:
    index = open_evals(load_domain(domain))
    assert index is not None
    assert {part.name: part.items for part in index.sets}[name] == items
    assert set(index.items.tolist()) == set(range(len(index.ids)))
    assert all(len(name) < 20 for name in index.ids)  # numbers, not texts


@pytest.mark.parametrize("domain", ["finance", "health"])
def test_readme_states_the_figures_of_the_bundled_index(domain: str) -> None:
    folder = load_domain(domain).folder
    text = (folder / "README.md").read_text("utf-8")
    for recipe in load_domain(domain).recipe.evals:
        index = EvalIndex.load(folder / recipe.index)
        size = (folder / recipe.index).stat().st_size
        line = next(line for line in text.splitlines() if line.startswith(f"| `{recipe.index}`"))
        assert f"| {len(index.ids):,} | {len(index.keys):,} | {size:,} | {recipe.license.upper()} |" in line


@pytest.mark.parametrize("domain", ["finance", "health"])
def test_bundled_indexes_are_in_the_form_that_is_written(domain: str, tmp_path: Path) -> None:
    folder = load_domain(domain).folder
    for recipe in load_domain(domain).recipe.evals:
        EvalIndex.load(folder / recipe.index).save(tmp_path / "again.npz")
        assert (tmp_path / "again.npz").read_bytes() == (folder / recipe.index).read_bytes()


def test_bundled_index_of_pubmedqa_has_the_official_test_items() -> None:
    folder = load_domain("health").folder
    official = (folder / "pubmedqa-test-pmids.txt").read_text("utf-8").split()
    assert sorted(EvalIndex.load(folder / "evals" / "pubmedqa.npz").ids) == sorted(official)


def test_the_example_indexes_a_file(tmp_path: Path) -> None:
    seen = ["Nothing to see here.", FILLER * 2]
    rows = [
        {"ask": LEAK, "more": {"why": ANSWER, "seen": seen}, "n": 4},
        {"ask": "Not taken?", "more": {"why": "No.", "seen": []}, "n": 5},
    ]
    (tmp_path / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (tmp_path / "ids.txt").write_text("4\n", "utf-8")
    flags = "--name exam --question ask --answer more.why --context more.seen --id n --ids ids.txt --output exam.npz"
    command = [sys.executable, str(ROOT / "examples" / "index_eval_set.py"), "exam.jsonl", *flags.split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 items, 1 of them")
    index = EvalIndex.load(tmp_path / "exam.npz")
    hits = judge(index, ("?", ANSWER), (FILLER * 2, "")).hits
    assert [(hit.row, hit.item, hit.field) for hit in hits] == [(0, "4", "answer"), (1, "4", "context")]


# --- for any text -----------------------------------------------------------------------------------------------------

WORDS = st.text(string.ascii_lowercase + "éßñж", min_size=1, max_size=6)
TEXTS = st.lists(WORDS, min_size=SHORTEST_GRAM, max_size=150)


@given(st.lists(TEXTS, min_size=1, max_size=4), st.lists(WORDS, max_size=30), st.lists(WORDS, max_size=30), st.data())
def test_every_copy_inside_a_longer_text_is_found(
    texts: list[list[str]], before: list[str], after: list[str], data: st.DataObject
) -> None:
    index = index_of(*(EvalItem(str(number), " ".join(words)) for number, words in enumerate(texts)))
    wanted = data.draw(st.integers(0, len(texts) - 1))
    matches = match_row(index, " ".join([*before, *texts[wanted], *after]), "yes")
    assert wanted in {match.item for match in matches}


@given(st.lists(WORDS, min_size=DENSE_WORDS + 1, max_size=200), st.data())
def test_twenty_words_in_a_row_of_a_long_text_are_found(words: list[str], data: st.DataObject) -> None:
    run = len(split_words(" ".join(words)))
    start = data.draw(st.integers(0, run - (GRAM + WINDOW - 1)))
    part = split_words(" ".join(words))[start : start + GRAM + WINDOW - 1]
    index = index_of(EvalItem("q", "Nothing", "", " ".join(words)))
    assert [match.field for match in match_row(index, "", " ".join(part))] == ["context"]


@given(st.lists(st.text("abcdef ", min_size=1), min_size=1), st.lists(st.text("uvwxyz .$@#", min_size=1), min_size=1))
def test_texts_without_a_word_in_common_never_match(asked: list[str], seen: list[str]) -> None:
    index = index_of(*(EvalItem(str(number), text, text, text) for number, text in enumerate(asked)))
    assert index.match_rows(seen, seen[::-1]) == []


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_a_batch_finds_what_single_rows_find(pairs: list[tuple[list[str], list[str]]]) -> None:
    rows = [(" ".join(question), " ".join(answer)) for question, answer in pairs]
    index = index_of(*(EvalItem(str(number), q, a, f"{a} {q}") for number, (q, a) in enumerate(rows)))
    rows += [("", ""), (rows[0][1], rows[-1][0])]
    batch = index.match_rows([question for question, _ in rows], [answer for _, answer in rows])
    assert batch == [(number, match) for number, row in enumerate(rows) for match in match_row(index, *row)]


def test_the_hash_seed_of_python_changes_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from finetune.prepare.decontaminate.build import build_index\n"
        "from finetune.prepare.decontaminate.eval_index import EvalItem\n"
        "from finetune.prepare.decontaminate.verdict import find_hits\n"
        f"index = build_index('x', [EvalItem(str(n), {LEAK!r} + ' %d' % n, {ANSWER!r}, {FILLER * 9!r}) for n in range(4)])\n"
        "index.save(Path(sys.argv[1]))\n"
        f"print(find_hits(index, index.match_rows([{LEAK!r}] * 12, [{FILLER!r}] * 12), 12))\n"
    )
    outputs = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code, str(tmp_path / seed)]
        outputs.append(subprocess.run(command, capture_output=True, env=environment, check=True).stdout)
    assert outputs[0] == outputs[1]
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
