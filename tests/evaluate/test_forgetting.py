"""What an adapter has forgotten: the bundled probe, how it is scored, and what the report says of it."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from finetune.cli.render.evaluation import render_evaluation
from finetune.errors import InputError
from finetune.evaluate import EvalRequest, EvalResult, evaluate
from finetune.evaluate.forgetting import probe
from finetune.evaluate.forgetting.ask import ask_probe
from finetune.evaluate.forgetting.measure import compare_perplexity
from finetune.evaluate.forgetting.rules import Check, Rule, follows
from finetune.prepare.dedup.keys import normalise
from finetune.prepare.dedup.near import near_duplicates
from finetune.prepare.dedup.signature import sign
from finetune.records import Example
from finetune.train import replay

LEAST = {
    "common_sense": 70,
    "arithmetic": 60,
    "language": 60,
    "instructions": 50,
    "refusals": 60,
    "passages": 40,
}
TASKS = {task.name.removeprefix("forgetting/"): task for task in probe.probe_tasks()}


def asked(row: Example) -> str:
    return row.messages[0].content.removesuffix(probe.BRIEFLY).strip()


@pytest.fixture(scope="module")
def result(tiny_adapter: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> EvalResult:
    folder = tmp_path_factory.mktemp("reports") / "eval"
    return evaluate(EvalRequest(tiny_adapter, tiny_corpus, folder, tasks=("news",), limit=4))


def test_probe_has_enough_items_of_every_category() -> None:
    counts = {name: len(task.examples) for name, task in TASKS.items()}
    assert all(counts[name] >= least for name, least in LEAST.items())
    assert sum(counts[name] for name in probe.CATEGORIES) >= 300


def test_no_item_is_there_twice_or_in_other_words() -> None:
    texts = [normalise(asked(row)) for task in TASKS.values() for row in task.examples]
    assert len(set(texts)) == len(texts)
    like = near_duplicates(sign(texts), np.zeros(len(texts), np.uint64), np.arange(len(texts)), 0.6)
    assert [(texts[row], texts[like.keeper[row]]) for row in np.flatnonzero(like.keeper >= 0)] == []


def test_no_item_can_be_replayed_in_training() -> None:
    replayed = [json.loads(line)["question"] for line in replay.BUNDLED.read_text("utf-8").splitlines()]
    texts = [normalise(text) for text in (*replayed, *(asked(row) for task in TASKS.values() for row in task.examples))]
    like = near_duplicates(sign(texts), np.zeros(len(texts), np.uint64), np.arange(len(texts)), 0.6)
    assert [texts[row] for row in np.flatnonzero(like.keeper >= 0)] == []


@pytest.mark.parametrize("category", probe.CHOICES)
def test_right_answers_are_unique_and_their_places_balanced(category: str) -> None:
    rows = TASKS[category].examples
    assert all(len(set(row.choices)) == 4 and row.label in row.choices for row in rows)
    places = Counter(row.choices.index(str(row.label)) for row in rows)
    assert max(places.values()) - min(places.values()) <= 1


def test_careful_answers_differ_from_careless_ones_and_are_as_long() -> None:
    rows = TASKS["refusals"].examples
    lengths = [tuple(len(choice.split()) for choice in row.choices) for row in rows]
    assert all(row.choices[0] != row.choices[1] and row.label == row.choices[0] for row in rows)
    assert all(max(pair) <= 30 for pair in lengths)
    assert 0.8 < sum(first for first, _ in lengths) / sum(second for _, second in lengths) < 1.25


@pytest.mark.parametrize(
    ("check", "value", "kept", "broken"),
    [
        ("equals", "yes", " Yes. ", "Yes, it is."),
        ("equals_case", "MOON", '"MOON"', "moon"),
        ("starts", "The month is", "the month is May", "May"),
        ("ends", "The end.", "The ship sank. The end.", "The end of the ship."),
        ("contains", "salt", "It needs Salt.", "It needs pepper."),
        ("excludes", "snow", "Winter is cold.", ""),
        ("words", 3, "Bees make honey.", "Honey."),
        ("most_words", 3, "Honey", "A lot of honey"),
        ("lines", 2, "one\n\ntwo", "one, two"),
        ("bullets", 2, "- cat\n- dog", "- cat\ndog"),
        ("commas", 2, "cat, dog, hen", "cat and dog"),
        ("upper", "", "ROME!", "Rome"),
        ("lower", "", "robin", "Robin"),
        ("json", "name", '```json\n{"name": "Ada"}\n```', '{"name": "Ada"'),
        ("json", "name", '{"name": "Ada"}', '["name"]'),
    ],
)
def test_rules_are_checked(check: Check, value: str | int, kept: str, broken: str) -> None:
    rule = Rule(check=check, texts=(value,)) if isinstance(value, str) else Rule(check=check, count=value)
    assert follows(rule, kept)
    assert not follows(rule, broken)


def test_every_rule_of_the_probe_can_be_kept_and_has_what_it_compares_with() -> None:
    counted = {"words", "most_words", "lines", "bullets", "commas"}
    for rule in probe.read_instructions():
        assert bool(rule.count) == (rule.check in counted)
        assert bool(rule.texts) == (rule.check not in {*counted, "upper", "lower"})


def test_drop_is_base_minus_adapter_with_an_interval(result: EvalResult) -> None:
    forgetting = result.forgetting
    assert forgetting is not None
    assert forgetting.n == sum(drop.n for drop in forgetting.categories.values()) >= 300
    assert forgetting.drop == pytest.approx(forgetting.base - forgetting.adapter)
    assert forgetting.ci95[0] <= forgetting.drop <= forgetting.ci95[1]
    perplexity = forgetting.perplexity
    assert perplexity.ratio == pytest.approx(perplexity.adapter / perplexity.base)
    assert perplexity.ci95[0] <= perplexity.ratio <= perplexity.ci95[1]


def test_report_and_terminal_say_what_was_forgotten(result: EvalResult) -> None:
    data = json.loads((result.report.parent / "report.json").read_text("utf-8"))["forgetting"]
    assert {"n", "base", "adapter", "drop", "ci95", "categories", "perplexity"} <= set(data)
    assert set(data["categories"]) == set(probe.CATEGORIES)
    assert f"forgetting   {data['n']} items: {data['base']:.3f} → " in render_evaluation(result, "next")
    samples = (result.report.parent / "samples.jsonl").read_text("utf-8")
    assert "forgetting" not in samples


def test_perplexity_is_weighted_by_tokens() -> None:
    base, adapter = [(-20.0, 10.0), (-10.0, 10.0)], [(-30.0, 10.0), (-10.0, 10.0)]
    change = compare_perplexity(base, adapter)
    assert change.base == pytest.approx(math.exp(30 / 20))
    assert change.adapter == pytest.approx(math.exp(40 / 20))
    assert change.ratio == pytest.approx(math.exp(10 / 20))
    assert change.ci95 == pytest.approx((1.0, math.e))


def test_passages_are_measured_as_by_a_plain_pass(tiny_adapter: Path) -> None:
    import torch

    from finetune.artifacts import Adapter
    from finetune.models.load import load_adapter

    loaded = load_adapter(Adapter.open(tiny_adapter))
    answers = ask_probe(loaded, TASKS["passages"], batch_size=3, on_rows=lambda rows: None)
    for row, (logprob, count) in list(zip(TASKS["passages"].examples, answers.logprobs, strict=True))[:2]:
        ids = torch.tensor([loaded.tokenizer(row.answer, add_special_tokens=False)["input_ids"]])
        with torch.inference_mode():
            logprobs = loaded.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        assert count == ids.shape[1] - 1
        assert logprob == pytest.approx(float(logprobs.gather(-1, ids[0, 1:, None]).sum()), abs=1e-3)


def test_nothing_is_measured_if_not_asked_for(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    request = EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "out", tasks=("news",), limit=2, forgetting=False)
    result = evaluate(request)
    assert result.forgetting is None
    assert "forgetting" not in json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert "forgetting" not in render_evaluation(result, "next")


def test_context_that_is_too_short_names_the_option(tiny_adapter: Path) -> None:
    from finetune.artifacts import Adapter
    from finetune.models.load import load_adapter

    loaded = load_adapter(Adapter.open(tiny_adapter))
    loaded.model.config.max_position_embeddings = 64
    with pytest.raises(InputError, match=r"context of \d+ tokens.*--no-forgetting"):
        ask_probe(loaded, TASKS["refusals"], batch_size=4, on_rows=lambda rows: None)
