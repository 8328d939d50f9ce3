"""The meaning of a model's name, and the files that its folder needs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from finetune.errors import InputError, OfflineError, UnknownNameError
from finetune.hub.snapshots import Need
from finetune.models.find import find_base, hub_id_of, is_name


@pytest.mark.parametrize("text", ["smollm2-135m", "acme/tiny"])
def test_presets_and_hub_ids_are_names(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize("text", ["./tiny", "~/tiny", "/models/tiny", "runs/finance/adapter"])
def test_paths_are_not_names(text: str) -> None:
    assert not is_name(text)
    with pytest.raises(UnknownNameError, match="Give a preset, a Hub id"):
        hub_id_of(text)


def test_a_preset_has_two_names() -> None:
    hub_id = "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert hub_id_of("smollm2-135m") == hub_id_of(hub_id.lower()) == hub_id


def test_the_closest_preset_is_suggested() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'smollm2-135m'"):
        find_base("smollm2-135")


def test_a_folder_needs_only_the_requested_files(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, tmp_path)
    base = find_base(str(tmp_path), need=Need.TOKENIZER)
    assert (base.folder, base.fingerprint) == (tmp_path.resolve(), "")
    with pytest.raises(InputError, match=r"no readable config\.json"):
        find_base(str(tmp_path))
    shutil.copy(tiny_model / "config.json", tmp_path)
    with pytest.raises(InputError, match=r"no \.safetensors weights"):
        find_base(str(tmp_path))


def test_only_the_files_that_transformers_loads_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    before = find_base(str(folder))
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    after = find_base(str(folder))
    assert (after.parameters, after.fingerprint) == (before.parameters, before.fingerprint)


def test_an_incomplete_set_of_shards_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}), "utf-8")
    with pytest.raises(InputError, match=r"is incomplete: model-00002-of-00002\.safetensors is missing"):
        find_base(str(folder))


def test_nothing_is_downloaded_without_fetch() -> None:
    with pytest.raises(OfflineError, match="tokenizer of acme/tiny is not on this machine"):
        find_base("acme/tiny", need=Need.TOKENIZER, fetch=False)
