"""An ONNX file predicts in onnxruntime what its encoder predicts in transformers, or it is not written."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

from finetune.artifacts import Adapter, Export
from finetune.errors import CheckFailedError, InputError
from finetune.export import ExportRequest, ExportResult, export_artifact
from finetune.export.onnx import run
from finetune.export.onnx.convert import FILES
from finetune.export.onnx.session import OnnxEncoder
from finetune.merge import MergeRequest, merge_adapter
from finetune.models.encoder_inputs import encode_texts
from finetune.models.heads import Head
from finetune.models.load import LoadedModel, load_adapter
from finetune.recipe.options import ExportOptions
from finetune.scoring.encoders import predict

from ..command import run as slmtune
from ..encoders import ANSWERS, NEWS, SHALLOW, TOPICS, write_encoder, write_encoder_adapter

TEXTS = ["profit rose", "shares fell as costs grew. the bank held capital.", "costs"]
CONTEXT = "The bank raised its outlook after profit rose."


def adapter_of(folder: Path, kind: str, head: Head) -> Path:
    return write_encoder_adapter(folder / "adapter", write_encoder(folder / kind, kind, **SHALLOW[kind]), head)


def export(artifact: Path, out: Path, **options: Any) -> ExportResult:
    return export_artifact(ExportRequest(artifact, out, ExportOptions(format="onnx", **options)))


@pytest.fixture(scope="module")
def news(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportResult]:
    """An adapter of BERT, and its file."""
    folder = tmp_path_factory.mktemp("news")
    adapter = adapter_of(folder, "bert", NEWS)
    return adapter, export(adapter, folder / "export")


def predictions(loaded: LoadedModel, batch_size: int = 2) -> list[Any]:
    contexts = [CONTEXT if loaded.head == ANSWERS else None for _ in TEXTS]
    inputs = [encode_texts(loaded.tokenizer, *pair, 64) for pair in zip(TEXTS, contexts, strict=True)]
    return [vars(row) for row in predict(loaded, inputs, contexts, batch_size=batch_size)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "head"),
    [("bert", NEWS), ("distilbert", TOPICS), ("mobilebert", ANSWERS), ("modernbert", NEWS)],
)
def test_file_predicts_what_the_adapter_predicts_for_any_number_and_length_of_rows(
    kind: str, head: Head, news: tuple[Path, ExportResult], tmp_path: Path
) -> None:
    adapter, result = news
    if kind != "bert":
        adapter = adapter_of(tmp_path, kind, head)
        result = export(adapter, tmp_path / "export")
    assert result.verified
    assert result.greedy_agreement == 1.0
    loaded = load_adapter(Adapter.open(adapter))
    exported = OnnxEncoder(result.path / FILES["f32"], loaded.model.config)
    running = LoadedModel(exported, loaded.tokenizer, loaded.base, head)
    for size in (1, 2, 3):
        for ours, theirs in zip(predictions(running, size), predictions(loaded, size), strict=True):
            assert ours.pop("labels", ()) == theirs.pop("labels", ())
            values = ours.pop("probabilities", ours), theirs.pop("probabilities", theirs)
            assert values[0] == pytest.approx(values[1], abs=1e-4)


@pytest.mark.slow
def test_weights_in_8_bits_are_smaller_and_labels_have_names(news: tuple[Path, ExportResult], tmp_path: Path) -> None:
    adapter, whole = news
    merge_adapter(MergeRequest(adapter, tmp_path / "model"))
    small = export(tmp_path / "model", tmp_path / "int8", quantization="int8")
    assert (small.path / FILES["int8"]).stat().st_size < (whole.path / FILES["f32"]).stat().st_size
    manifest = Export.open(small.path).manifest
    assert small.agreement is not None
    assert manifest["verification"]["rows"] == small.agreement.rows
    assert set(manifest["parents"]) >= {"model", "adapter"}
    config = json.loads((small.path / "config.json").read_text("utf-8"))
    assert list(config["id2label"].values()) == list(NEWS.labels)
    assert (small.path / "tokenizer.json").is_file()


@pytest.mark.slow
def test_a_file_that_predicts_something_else_is_not_written(
    news: tuple[Path, ExportResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of another adapter."""
    adapter = write_encoder_adapter(tmp_path / "adapter", news[0].with_name("bert"), NEWS, seed=1)

    def write_other(loaded: LoadedModel, precision: str, file: Path) -> None:
        file.parent.mkdir()
        copyfile(news[1].path / FILES["f32"], file)

    monkeypatch.setattr(run, "convert", write_other)
    with pytest.raises(CheckFailedError, match="does not follow the adapter"):
        export(adapter, tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir() if "export" in path.name] == []


def test_what_cannot_be_exported_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = adapter_of(tmp_path, "bert", NEWS)
    with pytest.raises(InputError, match="Choose one of: f32, int8"):
        export(adapter, tmp_path / "export", quantization="q4_k_m")
    monkeypatch.setattr("finetune.export.onnx.convert.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'slmtune\[onnx\]'"):
        export(adapter, tmp_path / "export")


def test_command_prints_how_the_file_was_verified(tmp_path: Path) -> None:
    adapter = adapter_of(tmp_path, "distilbert", NEWS)
    words = ("--format", "onnx", "--quantization", "int8", "--out", "export")
    done = slmtune("export", str(adapter), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
    assert (tmp_path / "export" / FILES["int8"]).is_file()
    assert "onnxruntime" in done.stdout
    assert "[torch.onnx]" not in done.stdout + done.stderr
    assert "experimental" not in done.stderr
