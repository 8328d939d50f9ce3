"""The scores of translations, summaries and code agree with their libraries and with counts by hand."""

from __future__ import annotations

import difflib
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.cards.metric_names import METRIC_NAMES
from finetune.cards.model_card import HUB_METRICS
from finetune.errors import InputError
from finetune.records import TextMetric
from finetune.scoring import texts
from finetune.scoring.texts import (
    TASK_METRICS,
    available,
    chrf,
    edit_similarity,
    parses,
    read_code,
    require_libraries,
    rouge,
    score_text,
    score_texts,
)

codes = st.lists(st.sampled_from(["x", "=", "1", "\n    ", "return", "(", ")"]), max_size=12).map(" ".join)


def test_same_translation_scores_one_and_another_one_less() -> None:
    assert chrf("Ihr Termin ist um neun.", "Ihr Termin ist um neun.") == pytest.approx(1)
    near, far = (
        chrf("Ihr Termin ist um neun.", "Ihr Termin ist um zehn."),
        chrf("Ihr Termin ist um neun.", "Bitte warten."),
    )
    assert 0 < far < near < 1
    assert chrf("Ihr Termin ist um neun.", "") == 0


def test_translations_get_bleu_of_all_sentences_together() -> None:
    from sacrebleu.metrics.bleu import BLEU

    references = ["Ihr Termin ist um neun Uhr.", "Die Kasse ist heute zu."]
    answers = ["Ihr Termin ist um neun.", "Die Kasse ist heute zu."]
    scores = score_texts(["chrf"], references, answers)
    assert scores["bleu"] == pytest.approx(BLEU().corpus_score(answers, [references]).score / 100)
    assert scores["chrf"] == pytest.approx((chrf(references[0], answers[0]) + 1) / 2)


def test_rouge_by_hand_and_in_any_language() -> None:
    scores = rouge("Die Tür ist zu", "die Tür war zu")
    assert scores == pytest.approx({"rouge_l": 0.75, "rouge_1": 0.75, "rouge_2": 1 / 3})
    assert rouge("Мост закрыт", "мост открыт")["rouge_1"] == pytest.approx(0.5)
    assert rouge("The pier is closed", "closed is pier the")["rouge_l"] == pytest.approx(0.25)


def test_code_in_a_fence_is_compared_without_it() -> None:
    code = "def add(a, b):\n    return a + b"
    answer = f"Here it is:\n```python\n{code}  \n```\nIt adds."
    assert read_code(answer) == read_code(f"\n{code}\n\n") == code
    assert score_texts(["edit_similarity"], [code], [answer]) == {"edit_similarity": 1, "exact_match": 1, "parses": 1}


def test_indentation_is_a_difference() -> None:
    one, other = "if a:\n    b()\n    c()", "if a:\n    b()\nc()"
    assert edit_similarity(one, other) == pytest.approx(1 - 1 / 11)
    assert read_code("    return 1\n") == "    return 1"


@given(codes, codes)
def test_edit_similarity_is_a_similarity(one: str, other: str) -> None:
    here, there = edit_similarity(one, other), edit_similarity(other, one)
    assert here == pytest.approx(there)
    assert 0 <= here <= 1
    assert (here == 1) == (texts.CODE_TOKEN.findall(read_code(one)) == texts.CODE_TOKEN.findall(read_code(other)))


@given(codes, codes)
def test_edit_distance_counts_the_fewest_changes(one: str, other: str) -> None:
    ours, theirs = one.split(), other.split()
    operations = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes()
    changes = sum(max(end - start, stop - begin) for kind, start, end, begin, stop in operations if kind != "equal")
    assert abs(len(ours) - len(theirs)) <= texts._edit_distances(ours, theirs)[-1] <= changes


def test_share_that_parses_counts_only_rows_of_python() -> None:
    scores = score_texts(["edit_similarity"], ["x = 1", "y = 2", "SELECT a FROM b;"], ["x = 1", "y = = 2", "SELECT a"])
    assert scores["parses"] == 0.5
    assert "parses" not in score_texts(["edit_similarity"], ["SELECT a FROM b;"], ["x = 1"])


@pytest.mark.parametrize("code", ["x = \0", "(" * 5000, "x = '\\d'", "def f(:", "   y"])
def test_code_that_breaks_the_parser_is_only_not_python(code: str) -> None:
    assert parses(code) == (code == "x = '\\d'")


def test_parsed_code_is_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert parses("print('run')\nraise SystemExit(3)")
    assert capsys.readouterr().out == ""


def test_other_texts_are_scored_by_words() -> None:
    assert score_text("token_f1", "The yield rises", "the yield falls") == pytest.approx(2 * 2 / 6)


@pytest.mark.parametrize("metric", TASK_METRICS.values())
def test_every_score_has_a_name_for_readers(metric: TextMetric) -> None:
    scores = score_texts([metric], ["x = 1"], ["x = 2"])
    assert metric in scores
    assert scores.keys() <= METRIC_NAMES.keys() & HUB_METRICS.keys()


def test_missing_library_is_named_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert require_libraries(["chrf", "rouge_l", "weighted_f1"]) == ["rouge_score", "sacrebleu"]
    monkeypatch.setattr(texts, "find_spec", lambda name: None if name == "sacrebleu" else find_spec(name))
    with pytest.raises(InputError, match=r"sacrebleu .* pip install 'slmtune\[eval\]'"):
        require_libraries(["weighted_f1", "chrf"])


def test_several_scores_are_given_side_by_side() -> None:
    scores = score_texts(["token_f1", "rouge_l"], ["The pier is closed"], ["the pier was closed"])
    assert scores == pytest.approx({"token_f1": 0.75, "rouge_l": 0.75, "rouge_1": 0.75, "rouge_2": 1 / 3})
    assert score_texts(["number_match"], ["0.05", "yes"], ["5%", "no"]) == {"number_match": 0.5}
    assert score_texts(["exact_match"], ["The pier"], ["pier."]) == {"exact_match": 1}


def test_figures_beside_the_headline_are_left_out_without_their_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "find_spec", lambda name: None)
    assert available(["token_f1", "rouge_l"]) == ["token_f1"]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.lists(st.integers(0, 3), max_size=8))
def test_no_end_of_a_text_comes_nearer_than_its_beginning_can(reference: list[int], text: list[int]) -> None:
    text = text[: len(reference)]
    reached = texts.token_similarity(reference, text)
    assert all(texts.reachable_similarity(reference, text[:length]) >= reached for length in range(len(text) + 1))
    assert texts.reachable_similarity(reference, reference[: len(reference) // 2]) == 1
