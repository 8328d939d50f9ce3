"""An ExecuTorch program predicts in its runtime what its encoder predicts in transformers, or it is not written."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.artifacts import Adapter
from finetune.errors import InputError
from finetune.export import ExportRequest, ExportResult, export_artifact
from finetune.export.executorch.program import FILE, ExecutorchEncoder
from finetune.merge import MergeRequest, merge_adapter
from finetune.models.encoder_inputs import encode_texts
from finetune.models.heads import Head
from finetune.models.load import LoadedModel, load_adapter
from finetune.recipe.options import ExportOptions
from finetune.scoring.encoders import predict

from ..encoders import ANSWERS, NEWS, SHALLOW, TOPICS, write_encoder, write_encoder_adapter

TEXTS = ["profit rose", "shares fell as costs grew. the bank held capital.", "costs", "the bank rose. " * 60]
CONTEXT = "The bank raised its outlook after profit rose."


def export(artifact: Path, out: Path) -> ExportResult:
    return export_artifact(ExportRequest(artifact, out, ExportOptions(format="executorch")))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "head"), [("distilbert", TOPICS), ("mobilebert", ANSWERS)])
def test_program_predicts_what_the_adapter_predicts_for_texts_of_any_length(
    kind: str, head: Head, tmp_path: Path
) -> None:
    base = write_encoder(tmp_path / kind, kind, **SHALLOW[kind])
    adapter = write_encoder_adapter(tmp_path / "adapter", base, head)
    merge_adapter(MergeRequest(adapter, tmp_path / "model"))
    result = export(tmp_path / "model", tmp_path / "export")
    assert result.verified
    assert result.greedy_agreement == 1.0
    assert {"config.json", "tokenizer.json", FILE} <= {path.name for path in result.path.iterdir()}
    loaded = load_adapter(Adapter.open(adapter))
    program = ExecutorchEncoder(result.path / FILE, loaded.model.config)
    running = LoadedModel(program, loaded.tokenizer, loaded.base, head)
    contexts = [CONTEXT if head == ANSWERS else None for _ in TEXTS]
    inputs = [encode_texts(loaded.tokenizer, *pair, 128) for pair in zip(TEXTS, contexts, strict=True)]
    ours, theirs = (predict(each, inputs, contexts, batch_size=1) for each in (running, loaded))
    for one, other in zip(map(vars, ours), map(vars, theirs), strict=True):
        assert one.pop("labels", ()) == other.pop("labels", ())
        values = one.pop("probabilities", one), other.pop("probabilities", other)
        assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_what_cannot_be_exported_is_refused_before_any_work(
    tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"is a causal language model\. Export it with: --format gguf"):
        export(tiny_adapter, tmp_path / "export")
    adapter = write_encoder_adapter(tmp_path / "adapter", write_encoder(tmp_path / "bert", "bert"), NEWS)
    monkeypatch.setattr("finetune.export.executorch.program.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'slmtune\[executorch\]'"):
        export(adapter, tmp_path / "export")
