"""The card of an export says what its files are, how they were verified and how they are run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from finetune.artifacts import Export
from finetune.cards.hub_forms import FORMS
from finetune.cards.model_card import is_untouched, model_card
from finetune.recipe import AdapterRecipe
from finetune.recipe.options import ExportFormat

BASE = {"name": "acme/tiny", "source": "hub", "revision": "main", "fingerprint": "b" * 64, "license": "apache-2.0"}
SOURCES = [{"id": "tweets", "uri": "hf://datasets/acme/tweets@1234:default", "license": "cc-by-nc-4.0"}]
CORPUS = {"fingerprint": "c" * 64, "domain": "finance", "sources": SOURCES, "counts": {"train": 900}}
AGREEMENT = {"rows": 64, "mean_kl": 0.0213, "greedy": 0.97, "runtime": "llama.cpp (cyllama 0.2.18)"}


def export(folder: Path, format_: str, quantization: str | None = None, **facts: Any) -> Export:
    (folder / "model.gguf").write_bytes(bytes(2048))
    recipe = AdapterRecipe(lora_r=7).model_dump(mode="json")
    config = {"format": format_, "quantization": quantization, "ollama": False, "adapter_config": recipe}
    parents = {"adapter": {"fingerprint": "a" * 64}, "base_model": BASE, "corpus": CORPUS}
    manifest = {"kind": "export", "slmtune_version": "9.9", "config": config, "parents": parents}
    return Export(folder, manifest | {"verification": AGREEMENT, "facts": {"mean_kl_of_the_weights": 0.0005}} | facts)


def metadata(card: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return values


@pytest.mark.parametrize(
    ("format_", "library", "relation", "tags"),
    [
        ("gguf", "gguf", "quantized", {"gguf"}),
        ("gguf-lora", "gguf", "adapter", {"gguf"}),
        ("onnx", "transformers.js", "quantized", {"onnx", "transformers.js"}),
        ("executorch", "executorch", "quantized", {"executorch"}),
        ("vllm", "peft", "adapter", {"vllm"}),
        ("fp8", "transformers", "quantized", {"fp8", "compressed-tensors", "vllm"}),
    ],
)
def test_metadata_files_the_export_under_its_base_model(
    format_: str, library: str, relation: str, tags: set[str], tmp_path: Path
) -> None:
    data = metadata(model_card(export(tmp_path, format_, "f32"), None))

    assert (data["base_model"], data["base_model_relation"]) == ("acme/tiny", relation)
    assert data["library_name"] == library
    assert {"slmtune", "finance", *tags} <= set(data["tags"])
    assert data["license"] == "apache-2.0"
    assert data["datasets"] == ["acme/tweets"]


def test_every_format_has_its_place_on_the_hub() -> None:
    assert set(FORMS) == {"adapter", "model", *get_args(ExportFormat)}


def test_card_says_how_the_files_were_verified_and_under_which_licences_they_are(tmp_path: Path) -> None:
    card = model_card(export(tmp_path, "gguf", "q4_k_m"), None)

    assert "| `model.gguf` | 2 KiB |" in card
    assert "Weights: `q4_k_m`." in card
    assert (
        "On 64 rows, these files were compared, in llama.cpp (cyllama 0.2.18), with the adapter over its base" in card
    )
    assert "| Mean KL in nats | 0.0213 |\n| Equal greedy tokens | 97.0% |\n| Mean KL of the weights | 0.0005 |" in card
    assert "Its licence is that of the base model: `apache-2.0`." in card
    assert "| tweets | cc-by-nc-4.0 |" in card
    assert "ollama" not in card
    assert is_untouched(card)


def test_export_that_was_compared_on_bundled_rows_says_so(tmp_path: Path) -> None:
    card = model_card(export(tmp_path, "gguf", "f16", verification=AGREEMENT | {"bundled_rows": 60}), None)

    assert "On 64 rows (60 of them general questions of slmtune), these files" in card


def test_export_of_a_merged_model_was_compared_with_that(tmp_path: Path) -> None:
    source = export(tmp_path, "gguf", "f16")
    parents = {"model": {"fingerprint": "d" * 64}, **source.manifest["parents"]}
    card = model_card(Export(tmp_path, {**source.manifest, "parents": parents}), None)

    assert "with the merged model:" in card


def test_encoder_that_finds_answers_is_asked_a_question_in_a_context(tmp_path: Path) -> None:
    card = model_card(export(tmp_path, "onnx", "int8", head={"kind": "extraction", "labels": []}), None, repo_id="me/x")

    assert 'const run = await pipeline("question-answering", "me/x", { dtype: "q8" });' in card
    assert 'await run("question", "context")' in card
    assert "| Equal predictions | 97.0% |" in card


def test_model_that_writes_is_asked_in_a_conversation(tmp_path: Path) -> None:
    card = model_card(export(tmp_path, "onnx", "f32"), None, repo_id="me/x")

    assert 'const run = await pipeline("text-generation", "me/x", { dtype: "fp32" });' in card
    assert 'await run([{ role: "user", content: "..." }]' in card


def test_unknown_licence_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = export(tmp_path, "vllm")
    parents = source.manifest["parents"] | {"base_model": BASE | {"license": "other"}}
    card = model_card(Export(tmp_path, {**source.manifest, "parents": parents}), None)

    assert "Its licence is" not in card
    assert "The licence of the base model is unknown. Find out before you use or share this export" in card
