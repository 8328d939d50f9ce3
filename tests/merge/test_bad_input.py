"""Adapters, base models and folders that cannot be used are refused before any work, in one sentence each."""

from __future__ import annotations

import json
import shutil
import signal
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from finetune.artifacts import Adapter, fingerprint_of, read_manifest, sha256_of, write_json
from finetune.errors import (
    ArtifactError,
    BaseModelError,
    DiskFullError,
    InputError,
    MissingStageError,
    OutputInUseError,
    SlmtuneError,
)
from finetune.lock import lock_folder
from finetune.merge import MergeRequest, merge_adapter
from finetune.merge import run as merge_run
from finetune.merge.weights import plan, write
from finetune.models.tensor_file import write_tensors

from ..command import Command

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture
def adapter(tiny_adapter: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_adapter, tmp_path / "adapter")


def sign(folder: Path) -> None:
    """Write the checksums of changed files into the manifest, as one who damages an adapter on purpose would."""
    manifest = read_manifest(folder)
    assert manifest
    manifest["files"] = {name: sha256_of(folder / name) for name in manifest["files"] if (folder / name).is_file()}
    manifest["fingerprint"] = fingerprint_of(manifest)
    write_json(folder / "manifest.json", manifest)


def refuse(error: type[SlmtuneError], adapter: Path, words: str, **options: Any) -> None:
    """Check that a merge is refused with these words before a model is loaded, and that nothing is left behind."""
    out = adapter.parent / "out" / "model"
    request = MergeRequest(adapter, out, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge_run, "trace_adapter", None)
        with pytest.raises(error, match=words) as caught:
            merge_adapter(request)
    assert "\n" not in str(caught.value)
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_corpus_at_an_address_without_one_is_refused(adapter: Path) -> None:
    refuse(MissingStageError, adapter, "no corpus at memory://nowhere/corpus", corpus="memory://nowhere/corpus")


def test_folder_without_a_corpus_is_refused(adapter: Path, tmp_path: Path) -> None:
    refuse(
        MissingStageError, adapter, "no corpus at .*/corpus. Make it with: slmtune prepare", corpus=tmp_path / "corpus"
    )


def test_base_model_of_the_same_shape_is_refused(adapter: Path, tiny_model: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    other.model.embed_tokens.weight.data.normal_()
    shutil.copytree(tiny_model, tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    refuse(BaseModelError, adapter, "was trained on", model=str(tmp_path / "other"))


def test_edited_alpha_is_refused(adapter: Path) -> None:
    config = json.loads((adapter / CONFIG).read_text("utf-8"))
    write_json(adapter / CONFIG, config | {"lora_alpha": 999})
    refuse(ArtifactError, adapter, f"{CONFIG} has changed since it was written")
    sign(adapter)
    refuse(ArtifactError, adapter, "lora_alpha.*999.*trained with 32")


def edit_weights(adapter: Path, change: Callable[[dict[str, Any]], None]) -> None:
    tensors = load_file(adapter / WEIGHTS)
    change(tensors)
    save_file(tensors, adapter / WEIGHTS)
    sign(adapter)


def test_missing_tensor_is_refused(adapter: Path) -> None:
    edit_weights(adapter, lambda tensors: tensors.pop(min(tensors)))
    refuse(ArtifactError, adapter, "1 tensors are missing, unexpected or of another shape")


def test_extra_tensor_is_refused(adapter: Path) -> None:
    edit_weights(adapter, lambda tensors: tensors.update(more=torch.ones(1)))
    refuse(ArtifactError, adapter, "1 tensors are missing, unexpected or of another shape, such as more")


def test_tensor_of_another_shape_is_refused(adapter: Path) -> None:
    edit_weights(adapter, lambda tensors: tensors.update({min(tensors): torch.ones(2, 2)}))
    refuse(ArtifactError, adapter, "1 tensors are missing, unexpected or of another shape")


def test_tensor_that_is_not_finite_is_refused(adapter: Path) -> None:
    edit_weights(adapter, lambda tensors: tensors[min(tensors)].fill_(torch.nan))
    refuse(ArtifactError, adapter, "numbers that are not finite")


def test_unknown_setting_is_refused(adapter: Path) -> None:
    config = json.loads((adapter / CONFIG).read_text("utf-8"))
    write_json(adapter / CONFIG, config | {"trainable_token_indices": [1, 2]})
    sign(adapter)
    refuse(InputError, adapter, "trainable_token_indices in its adapter_config.json, which cannot be folded")


def test_pickled_weights_are_not_loaded(adapter: Path) -> None:
    torch.save(load_file(adapter / WEIGHTS), adapter / "adapter_model.bin")
    (adapter / WEIGHTS).unlink()
    sign(adapter)
    refuse(ArtifactError, adapter, "slmtune does not load pickled weights")


HEADERS: dict[str, bytes] = {
    "empty": b"",
    "garbage": b"\xff" * 64,
    "header longer than the file": (10**12).to_bytes(8, "little") + b"{}",
    "not a dictionary": (2).to_bytes(8, "little") + b"[]",
    "nested without end": (50_000).to_bytes(8, "little") + b"[" * 50_000,
    "tensor behind the end": (64).to_bytes(8, "little")
    + b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'.ljust(64),
    "offsets that overlap": (128).to_bytes(8, "little")
    + b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}'.ljust(
        128
    )
    + b"123456",
    "shape that does not fit": (64).to_bytes(8, "little")
    + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'.ljust(64)
    + b"1234",
    "negative shape": (64).to_bytes(8, "little")
    + b'{"a":{"dtype":"U8","shape":[-2,-2],"data_offsets":[0,4]}}'.ljust(64)
    + b"1234",
}


@pytest.mark.parametrize("data", HEADERS.values(), ids=HEADERS)
def test_hostile_header_of_an_adapter_is_refused(data: bytes, adapter: Path) -> None:
    (adapter / WEIGHTS).write_bytes(data)
    sign(adapter)
    refuse(InputError, adapter, f"The weights in .*{WEIGHTS} are damaged")


def test_truncated_base_is_refused(adapter: Path, tiny_model: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    with (base / "model.safetensors").open("r+b") as file:
        file.truncate(100_000)
    refuse(SlmtuneError, adapter, "weights", model=str(base))


def test_architecture_without_own_tensors_is_refused(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "rename_source_key", lambda name, *others: (name, "pattern"))
    refuse(InputError, adapter, "LlamaForCausalLM cannot be merged: 14 layers with LoRA matrices")


def test_disk_without_space_is_reported_before_any_work(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    refuse(DiskFullError, adapter, "The merge needs .* where 1000 B are free")


def test_second_merge_into_one_folder_is_refused(adapter: Path) -> None:
    out = adapter.parent / "out" / "model"
    with lock_folder(out.parent / ".model.merge", out), pytest.raises(OutputInUseError, match="is writing to"):
        merge_adapter(MergeRequest(adapter, out))


def test_interrupted_merge_leaves_nothing(adapter: Path, tmp_path: Path) -> None:
    command = Command("merge", adapter, "--output-dir", tmp_path / "out" / "model", cwd=tmp_path)
    assert command.until(lambda: "merging onto" in command.stderr), command.stderr
    command.send(signal.SIGINT)
    assert command.wait() == 128 + signal.SIGINT
    assert list((tmp_path / "out").iterdir()) == []


def die_after_one_shard() -> None:
    """In the process of a command: small shards, and a kill before the second one."""
    shards: list[Path] = []

    def write_or_die(path: Path, tensors: Any) -> None:
        if shards:
            signal.raise_signal(signal.SIGKILL)
        write_tensors(path, tensors)
        shards.append(path)

    patch = pytest.MonkeyPatch()
    patch.setattr(plan, "SHARD_BYTES", 100_000)
    patch.setattr(write, "write_tensors", write_or_die)


def test_killed_merge_goes_on_behind_the_finished_shard(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "model"
    assert Command("merge", adapter, "--output-dir", out, cwd=tmp_path, before=die_after_one_shard).wait() == -9
    (finished,) = (tmp_path / "out").glob(".model.merge/original/*.safetensors")
    monkeypatch.setattr(plan, "SHARD_BYTES", 100_000)
    written: list[str] = []

    def record(path: Path, tensors: Any) -> None:
        written.append(path.name)
        write_tensors(path, tensors)

    monkeypatch.setattr(write, "write_tensors", record)
    result = merge_adapter(MergeRequest(adapter, out, onto="original"))
    assert result.verified
    assert finished.name not in written
    assert len(written) == int(finished.stem.rpartition("-")[2]) - 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]
    assert (out / "model.safetensors.index.json").is_file()


def test_shards_of_another_adapter_are_not_taken_over(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "model"
    assert Command("merge", adapter, "--output-dir", out, cwd=tmp_path, before=die_after_one_shard).wait() == -9
    edit_weights(adapter, lambda tensors: tensors[min(tensors)].mul_(2))
    assert Adapter.open(adapter)
    monkeypatch.setattr(plan, "SHARD_BYTES", 100_000)
    assert merge_adapter(MergeRequest(adapter, out)).verified
