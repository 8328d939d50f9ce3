"""Quality: rows that teach nothing are named with a reason, and good rows of the domains stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.prepare.clean.quality import filter_example
from finetune.records import Example, Message, Task

SAMPLES = sorted((Path(__file__).parents[3] / "datasets").glob("*/sample/*.jsonl"))
PROSE = (
    "Community-acquired pneumonia is an infection of the lung that was not caught in a hospital. Most adults recover "
    "within three weeks when they take an antibiotic such as amoxicillin, 500 mg three times a day, for five days. "
    "Severe cases need oxygen, fluids and a stay in hospital. Vaccination lowers the risk, as does giving up smoking."
)
TABLE = "| Drug | Dose | Days |\n|---|---|---|\n" + "\n".join(f"| Drug {n} | {n * 5} mg | {n} |" for n in range(40))


def document(text: str) -> Example:
    return Example("1", (Message("assistant", text),), "text")


def answered(question: str, answer: str, task: Task = "qa") -> Example:
    return Example("1", (Message("user", question), Message("assistant", answer)), task)


@pytest.mark.parametrize("file", SAMPLES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_no_row_of_the_bundled_samples_is_left_out(file: Path) -> None:
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert rows
    for row in rows:
        texts = [str(value) for name, value in row.items() if name in {"text", "context", "question", "answer"}]
        if "answer" in row:
            assert filter_example(answered(row["question"], row["answer"])) is None
        if "label" in row:
            assert filter_example(answered("\n\n".join(texts), row["label"], "classification")) is None
        assert [text for text in texts if filter_example(document(text)) not in {None, "too_short"}] == []


BAD_DOCUMENTS = {
    "one word": ("Topics", "too_short"),
    "no letters": ("12.5 % - 13.9 %\n2020 - 2021", "no_letters"),
    "symbols": ("== -- ## ** // -> see below == -- ## ** // -> ~~ ++ == -- ## ** // -> ~~ ++ end == --", "symbols"),
    "letters drawn apart": ("T h e  p a t i e n t  t o o k  t h e  d r u g  a n d  r e c o v e r e d .", "word_length"),
    "blanks lost": (
        " ".join(["thepatienttookthedrugandrecovered"] * 3 + ["withinthreeweekshewaswell"] * 20),
        "word_length",
    ),
    "repeated lines": (
        "\n".join([f"Line {n} of the text says {'abc'[n % 3]}." for n in range(3)] * 4),
        "repeated_lines",
    ),
    "repeated phrases": (" ".join(f"read more about it here {n} {n + 1} {n + 2}" for n in range(0, 90, 3)), None),
    "lorem ipsum": ("Lorem ipsum dolor sit amet, consectetur adipiscing elit.", "placeholder"),
    "replacement characters": ("Le patient \ufffdg\ufffd a \ufffdt\ufffd op\ufffdr\ufffd hier soir.", "broken_text"),
    "mojibake that nothing mends": ("РџРѕР»РµР·РЅР°СЏ Рё С…РѕСЂ " * 5 + "Ã\ufffdÂ Ã\ufffd â€ ", "broken_text"),
    "loop": ("I am sorry to hear that. " * 60, "loop"),
    "endless word": ("The answer is " + "ha" * 300, "loop"),
}
BAD_DOCUMENTS["repeated phrases"] = (
    " ".join(f"Genetic Testing Registry: item {chr(97 + n % 26)}{n}" for n in range(60)),
    "repeated_phrases",
)


@pytest.mark.parametrize(("text", "reason"), BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
def test_bad_document_is_left_out_with_its_reason(text: str, reason: str) -> None:
    assert filter_example(document(text)) == reason


GOOD_DOCUMENTS = {
    "prose": PROSE,
    "one sentence": "Rates rose again.",
    "table": TABLE,
    "prose and table": f"{PROSE}\n\n{TABLE}",
    "financial table": "Revenue and costs in millions\n"
    + "\n".join(f"Item {n} {n * 7},{n:03} {n * 6},{n:03} ({n * 3}.{n})" for n in range(1, 30)),
    "list": "Symptoms are:\n" + "\n".join(f"- {word}" for word in ("fever", "cough", "chills", "nausea", "rash")),
    "short lines that repeat": "\n".join(["Age: 5", "None", "Age: 6", "None", "Age: 7", "None", "Age: 8", "None"] * 2),
    "chemical names": "N-acetyl-para-aminophenol, 2-(4-isobutylphenyl)propanoic acid, acetylsalicylic acid. " * 2
    + PROSE,
    "German": "Donaudampfschifffahrtsgesellschaft und Krankenversicherungsbeitragssatz sind lange Wörter. " + PROSE,
    "Chinese": "患者服用抗生素十天，康复过程中没有出现并发症。",
    "Thai": "ผู้ป่วยได้รับยาปฏิชีวนะเป็นเวลาสิบวันและหายดี",
    "one lost character": PROSE + " It costs 5 \ufffd.",
    "lost emoji": "\ufffd\ufffd Here is why one great whale offers more in the fight against climate change",
    "Greek letters": "α-Tocopherol, β-carotene and γ-globulin rose by 5 µg, P < 0.05, Δ = 3 ± 1 ‰, “normal”.",
}


@pytest.mark.parametrize("text", GOOD_DOCUMENTS.values(), ids=GOOD_DOCUMENTS)
def test_good_document_stays(text: str) -> None:
    assert filter_example(document(text)) is None


@pytest.mark.parametrize(
    "answer",
    [
        "n/a",
        "N/A.",
        "-",
        "—",
        "...",
        "TODO",
        "tbd",
        "See above.",
        "null",
        "#N/A",
        "?",
        "[deleted]",
        "Lorem ipsum dolor sit",
    ],
)
def test_placeholder_is_no_answer(answer: str) -> None:
    assert filter_example(answered("What is VAT?", answer)) == "placeholder"
    assert filter_example(answered("What is VAT?", answer, "chat")) == "placeholder"


@pytest.mark.parametrize(
    "answer",
    ["No", "42", "5 mg", "None", "Unknown", "Na", "undefined", "≥ 3", "👍", "B", "C++", "See above all your doctor"],
)
def test_short_answer_stays(answer: str) -> None:
    assert filter_example(answered("What is VAT?", answer)) is None


def test_answer_that_is_the_question_is_an_echo() -> None:
    assert filter_example(answered("What is a bond?", "what is a bond")) == "echo"
    assert filter_example(answered("Answer the question.\n\nWhat is a bond?", "What is a bond?")) == "echo"
    assert filter_example(answered("What is a bond?", "A bond is a loan. What is a bond worth?")) is None
    assert filter_example(answered("Is it A or B?", "B")) is None


def test_answer_that_ran_into_a_loop_is_left_out() -> None:
    assert filter_example(answered("What is a bond?", "A bond is a loan. " * 50)) == "loop"
    assert filter_example(answered("What is a bond?", PROSE)) is None


def test_label_is_never_judged_but_its_text_is() -> None:
    assert filter_example(answered("Profit rose.", "-", "classification")) is None
    assert filter_example(answered(":) :(", "neutral", "classification")) == "no_letters"
    assert filter_example(answered("👍👍", "good", "classification")) is None
    assert filter_example(answered("caf\ufffd tr\ufffds d\ufffdj\ufffd", "neutral", "classification")) == "broken_text"


@given(st.text())
def test_any_text_gets_an_answer(text: str) -> None:
    for row in (document(text), answered(text, text), answered(text, "yes", "classification")):
        assert filter_example(row) in {
            *(None, "too_short", "no_letters", "symbols", "word_length", "repeated_lines", "repeated_phrases"),
            *("placeholder", "echo", "broken_text", "loop"),
        }


def test_long_text_without_blanks_or_breaks_takes_no_quadratic_time() -> None:
    filter_example(document("a1b1" * 100_000 + " word" * 30))
    filter_example(document("a 1b" * 100_000))
