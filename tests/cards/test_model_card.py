from __future__ import annotations

import json
from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.artifacts import Adapter, EvalReport, Model
from finetune.cards.model_card import is_untouched, model_card
from finetune.models.encoder_inputs import encode_texts
from finetune.models.heads import Head
from finetune.models.load import load_adapter
from finetune.recipe import AdapterRecipe, load_domain
from finetune.scoring.encoders import label_probabilities

from ..encoders import ANSWERS, NEWS, TOPICS, write_encoder, write_encoder_adapter

BASE = {"name": "acme/tiny", "source": "hub", "revision": "main", "fingerprint": "b" * 64, "license": "apache-2.0"}
SOURCES = [
    {"id": "tweets", "uri": "hf://datasets/acme/tweets@1234:default", "license": "mit"},
    {"id": "ours", "uri": "hf://datasets/acme/secret-project", "license": "unknown"},
    {"id": "reviews | mine", "uri": "reviews.csv", "license": "cc0-1.0"},
]
TASK = {
    "n": 80,
    "metric": "weighted_f1",
    "majority": 0.65,
    "base": {"accuracy": 0.5, "weighted_f1": 0.4, "macro_f1": 0.3},
    "adapter": {"accuracy": 0.81234567, "weighted_f1": 0.79, "macro_f1": 0.7},
    "delta": 0.39,
    "ci95": [0.25, 0.5],
    "p_value": 0.0001,
}


def adapter(base: dict[str, Any] | None = None, domain: str = "finance") -> Adapter:
    parents = {
        "base_model": {**BASE, **(base or {})},
        "corpus": {"fingerprint": "c" * 64, "domain": domain, "sources": SOURCES, "counts": {"train": 900, "test": 80}},
    }
    result = {"steps": 100, "epochs": 3.0, "train_loss": 1.23456789, "eval_loss": None, "tokens": 123456}
    config = AdapterRecipe(lora_r=7).model_dump(mode="json")
    about = {"kind": "adapter", "slmtune_version": "9.9", "config": config, "parents": parents, "result": result}
    return Adapter(Path("adapter"), about)


def encoder(kind: str = "classification", *labels: str) -> Adapter:
    trained = adapter()
    return Adapter(trained.path, {**trained.manifest, "head": {"kind": kind, "labels": list(labels)}})


def merged() -> Model:
    trained = adapter()
    figures = {"prompts": 64, "max_abs_logit_diff": 0.05, "mean_kl": 0.0001, "greedy_agreement": 0.99}
    config = {"onto": "original", "adapter_config": trained.config}
    parents = {"adapter": {"fingerprint": "a" * 64}, **trained.manifest["parents"]}
    return Model(
        Path("model"),
        {**trained.manifest, "kind": "model", "config": config, "parents": parents, "verification": {"drift": figures}},
    )


@pytest.fixture
def report(tmp_path: Path) -> EvalReport:
    (tmp_path / "report.json").write_text(json.dumps({"split": "test", "tasks": {"sentiment": TASK}}), "utf-8")
    return EvalReport(tmp_path, {})


def metadata(card: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return values


def test_metadata_links_the_adapter_to_its_base_model() -> None:
    data = metadata(model_card(adapter(), None))

    assert data["base_model"] == "acme/tiny"
    assert data["base_model_relation"] == "adapter"
    assert data["library_name"] == "peft"
    assert data["pipeline_tag"] == "text-generation"
    assert data["license"] == "apache-2.0"
    assert data["language"] == "en"
    assert {"slmtune", "lora", "qlora", "finance"} <= set(data["tags"])


def test_scores_become_a_model_index(report: EvalReport) -> None:
    data = metadata(model_card(adapter(), report))

    (entry,) = data["model-index"]
    (result,) = entry["results"]
    scores = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert scores == {"Accuracy": 0.8123, "F1 (weighted)": 0.79, "F1 (macro)": 0.7}
    assert result["dataset"]["split"] == "test"
    assert data["metrics"] == ["accuracy", "f1"]


def test_card_without_an_evaluation_claims_no_scores() -> None:
    card = model_card(adapter(), None)

    assert "model-index" not in metadata(card)
    assert "Not evaluated yet. Evaluate it with `slmtune eval --domain finance`" in card


def test_merge_that_was_compared_on_bundled_rows_says_so() -> None:
    model = merged()
    verification = {**model.manifest["verification"], "bundled_rows": 60}
    card = model_card(Model(model.path, {**model.manifest, "verification": verification}), None)

    assert "on held-out prompts (60 of them general questions of slmtune):" in card
    assert "general questions" not in model_card(model, None)


def test_results_table_shows_base_and_adapter(report: EvalReport) -> None:
    card = model_card(adapter(), report)

    assert "| sentiment | 80 | Accuracy | 0.650 | 0.500 | 0.812 | +0.312 |  |  |" in card
    assert "| sentiment | 80 | F1 (weighted) | - | 0.400 | 0.790 | +0.390 | +0.250 to +0.500 | < 0.001 |" in card


def test_only_hub_data_sets_that_anyone_may_know_are_named() -> None:
    card = model_card(adapter(), None, is_public=lambda name: name == "acme/tweets")

    assert metadata(card)["datasets"] == ["acme/tweets"]
    assert "secret-project" not in card


def test_unknown_licence_is_reported_in_metadata_text_and_log(caplog: pytest.LogCaptureFixture) -> None:
    card = model_card(adapter({"license": "other"}), None)

    assert metadata(card)["license"] == "other"
    assert "The licence of the base model is unknown" in card
    assert "licence of acme/tiny is unknown" in caplog.text


def test_local_base_model_is_not_linked() -> None:
    data = metadata(model_card(adapter({"name": "my-folder", "source": "local"}), None))

    assert "base_model" not in data
    assert "base_model_relation" not in data


def test_card_repeats_the_caution_of_the_domain() -> None:
    assert load_domain("finance").recipe.caution in model_card(adapter(), None)


def test_table_cells_cannot_break_the_table() -> None:
    assert "| reviews \\| mine | cc0-1.0 |" in model_card(adapter(), None)


def test_training_is_described_in_numbers() -> None:
    card = model_card(adapter(), None)

    assert "| LoRA rank, alpha, dropout | 7, " in card
    assert "| Training loss | 1.2346 |" in card
    assert "Held-out loss" not in card  # it was not measured


def test_repository_name_is_in_the_commands() -> None:
    card = model_card(adapter(), None, repo_id="me/finance-adapter")

    assert "slmtune pull me/finance-adapter --output-dir finance-adapter" in card
    assert 'PeftModel.from_pretrained(base, "me/finance-adapter")' in card


def test_python_in_the_card_compiles() -> None:
    for artifact in (adapter(), merged()):
        snippet = model_card(artifact, None, repo_id="me/x").split("```python\n")[1].split("```")[0]
        compile(snippet, "card", "exec")


def test_merged_model_shows_how_it_was_verified() -> None:
    card = model_card(merged(), None)

    assert metadata(card)["base_model_relation"] == "finetune"
    assert metadata(card)["library_name"] == "transformers"
    assert "| adapter over its base as trained | 64 | 0.0500 | 0.00010 | 99.0% |" in card
    assert "| LoRA rank, alpha, dropout | 7, " in card


def test_only_an_unedited_card_counts_as_untouched(report: EvalReport) -> None:
    card = model_card(adapter(), report)

    assert is_untouched(card)
    assert card == model_card(adapter(), report)
    assert not is_untouched(card.replace("Limitations", "Known limitations"))
    assert not is_untouched("# My own card\n")


def test_front_matter_is_plain_yaml(report: EvalReport) -> None:
    front = model_card(adapter(), report).split("---\n")[1]

    assert yaml.safe_load(front)["model-index"][0]["results"][0]["task"]["type"] == "text-generation"


@pytest.mark.parametrize(
    ("kind", "labels", "tag", "purpose"),
    [
        ("classification", ["up", "down"], "text-classification", "It gives a text one of these labels: `up`, `down`."),
        ("multi-label", ["a|b"], "text-classification", "It gives a text any number of these labels: `a\\|b`."),
        ("extraction", [], "question-answering", "It finds the answer to a question in a context"),
    ],
)
def test_card_of_an_encoder_says_what_it_predicts(kind: str, labels: list[str], tag: str, purpose: str) -> None:
    card = model_card(encoder(kind, *labels), None)

    assert metadata(card)["pipeline_tag"] == tag
    assert metadata(card)["library_name"] == "peft"
    assert purpose in card
    assert "apply_chat_template" not in card


def test_scores_of_an_encoder_are_beside_a_baseline(report: EvalReport) -> None:
    task = {**TASK, "baseline": "majority"}
    (report.path / "report.json").write_text(json.dumps({"split": "test", "tasks": {"news": task}}), "utf-8")
    card = " ".join(model_card(encoder("classification", "up"), report).split())

    assert "Its base model has no head and so no answers: the baseline is the most frequent label." in card
    assert "| Baseline | Adapter |" in card


@pytest.mark.parametrize("head", [NEWS, TOPICS, ANSWERS], ids=["one label", "several labels", "answers"])
def test_python_on_the_card_of_an_encoder_runs(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_encoder(tmp_path / "bert", "bert")
    folder = write_encoder_adapter(tmp_path / "adapter", base, head)
    monkeypatch.chdir(tmp_path)  # where the name of the base model is its folder
    snippet = model_card(Adapter.open(folder), None, repo_id="adapter").split("```python\n")[1].split("```")[0]
    exec(snippet.replace('"..."', '"profit rose"'), {})
    said = capsys.readouterr().out
    if head is ANSWERS:
        assert said.strip() in "profit rose"
    else:
        loaded = load_adapter(Adapter.open(folder), str(base))
        inputs = [encode_texts(loaded.tokenizer, "profit rose", None, 64)]
        expected = dict(zip(head.labels, label_probabilities(loaded, inputs, batch_size=1)[0], strict=True))
        rows = literal_eval(said)
        rows = rows[0] if isinstance(rows[0], list) else rows
        assert {row["label"]: row["score"] for row in rows} == pytest.approx(expected, abs=1e-4)


def test_card_says_what_the_figures_mean(report: EvalReport) -> None:
    card = model_card(adapter(), report)
    assert "The adapter is better than its base model by 0.39 (0.25 to 0.50)." in card


def test_figures_that_the_rows_do_not_define_are_left_out(report: EvalReport) -> None:
    scores = {"accuracy": 0.9, "weighted_f1": None, "macro_f1": None}
    task = {**TASK, "metric": "accuracy", "base": scores, "adapter": scores}
    (report.path / "report.json").write_text(json.dumps({"split": "test", "tasks": {"news": task}}), "utf-8")
    card = model_card(adapter(), report)
    assert "Accuracy" in card
    assert "F1" not in card
