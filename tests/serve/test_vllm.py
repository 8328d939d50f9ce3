"""`slmtune serve --print-vllm-command`: vLLM serves the same names at the same address, or the reason why it cannot."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import Adapter, writing
from finetune.errors import InputError
from finetune.export import ExportRequest, export_artifact
from finetune.merge import MergeRequest, merge_adapter
from finetune.recipe.options import ExportOptions, ServeOptions
from finetune.serve import Handover, ServeTarget, hand_over

from ..command import run as slmtune
from ..encoders import NEWS, write_encoder, write_encoder_adapter
from .conftest import make_adapter


def words(handover: Handover) -> list[str]:
    return list(handover.command)


def values(handover: Handover, option: str) -> list[str]:
    """The values of an option of vLLM."""
    after = words(handover)[words(handover).index(option) + 1 :]
    end = next((number for number, word in enumerate(after) if word.startswith("--")), len(after))
    return after[:end]


def of(adapters: dict[str, Path], **options: Any) -> Handover:
    return hand_over([ServeTarget(name, path) for name, path in adapters.items()], **options)


def change_settings(adapter: Path, out: Path, **settings: object) -> Path:
    """A copy of an adapter whose manifest says that it was trained with other settings."""
    with writing(out, Adapter, overwrite=False) as writer:
        for path in adapter.iterdir():
            if path.name != "manifest.json":
                (writer.folder / path.name).write_bytes(path.read_bytes())
        manifest = Adapter.open(adapter).manifest
        writer.manifest["config"] = manifest["config"] | settings
        writer.manifest["parents"] = manifest["parents"]
    return out


def test_each_adapter_is_exported_and_then_served_under_its_name(
    two_adapters: dict[str, Path], tiny_model: Path
) -> None:
    handover = of(two_adapters)
    exports = {name: path.with_name(f"{name}-vllm") for name, path in two_adapters.items()}
    assert [shlex.split(export.command) for export in handover.exports] == [
        ["slmtune", "export", str(two_adapters[name]), "--format", "vllm", "--output-dir", str(folder)]
        for name, folder in exports.items()
    ]
    assert words(handover)[:3] == ["vllm", "serve", str(tiny_model)]
    assert values(handover, "--served-model-name") == [tiny_model.name]
    assert values(handover, "--lora-modules") == [f"{name}={folder}" for name, folder in exports.items()]
    assert values(handover, "--max-loras") == ["2"]
    assert values(handover, "--max-lora-rank") == ["16"]  # that of the recipe
    assert values(handover, "--chat-template") == [str(exports["health"] / "chat_template.jinja")]
    assert "--enable-lora" in words(handover)


def test_address_is_stated_because_vllm_would_listen_on_every_one(two_adapters: dict[str, Path]) -> None:
    assert values(of(two_adapters), "--host") == ["127.0.0.1"]
    everywhere = ServeOptions(host="0.0.0.0", port=9, ssl_certfile=Path("cert.pem"), ssl_keyfile=Path("key.pem"))
    handover = of(two_adapters, options=everywhere, has_key=True)
    assert (values(handover, "--host"), values(handover, "--port")) == (["0.0.0.0"], ["9"])
    assert (values(handover, "--ssl-certfile"), values(handover, "--ssl-keyfile")) == (["cert.pem"], ["key.pem"])
    with pytest.raises(InputError, match=r"0\.0\.0\.0 can be reached from other machines"):
        of(two_adapters, options=everywhere)


@pytest.mark.parametrize(
    ("lines", "variables"),
    [("# people\n\nalice secret-1\nbob secret-2\n", {}), ("", {"SLMTUNE_API_KEYS": "secret-1,bob secret-2"})],
    ids=["file", "environment"],
)
def test_vllm_gets_the_first_key(
    two_adapters: dict[str, Path], tmp_path: Path, lines: str, variables: dict[str, str]
) -> None:
    keys = tmp_path / "the keys"
    keys.write_text(lines, "utf-8")
    given = ["--api-key-file", keys] if lines else []
    target = f"health={two_adapters['health']}"
    done = slmtune("serve", target, "--print-vllm-command", *given, cwd=tmp_path, env=variables)
    [_, command] = done.stdout.splitlines()
    key = command.partition(" vllm serve ")[0]
    printed = subprocess.run(
        ["bash", "-c", f'{key}; echo "$VLLM_API_KEY"'], env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert printed.stdout == "secret-1\n"


def test_room_is_made_for_the_largest_rank(two_adapters: dict[str, Path], tmp_path: Path) -> None:
    large = change_settings(two_adapters["health"], tmp_path / "large", lora_r=40)
    assert values(of({"health": two_adapters["health"], "large": large}), "--max-lora-rank") == ["64"]


def test_export_that_exists_is_not_made_again(tiny_adapter: Path, tmp_path: Path) -> None:
    mine = change_settings(tiny_adapter, tmp_path / "adapter")
    export = tmp_path / "export" / "vllm"
    export_artifact(ExportRequest(mine, export, ExportOptions(format="vllm")))
    handover = of({"mine": mine})
    assert (handover.exports, values(handover, "--lora-modules")) == ((), [f"mine={export}"])
    assert "--max-loras" not in words(handover)
    other = change_settings(tiny_adapter, tmp_path / "other", seed=43)
    assert len(of({"other": other}).exports) == 1  # the export beside it is of another adapter


def test_base_model_is_served_under_the_name_of_its_target(two_adapters: dict[str, Path], tiny_model: Path) -> None:
    handover = of({**two_adapters, "plain": tiny_model})
    assert values(handover, "--served-model-name") == ["plain"]


@pytest.mark.parametrize("merged", [False, True], ids=["base", "merged"])
def test_whole_model_is_served_as_it_is(tiny_model: Path, tiny_adapter: Path, tmp_path: Path, merged: bool) -> None:
    path = tiny_model
    if merged:
        path = tmp_path / "model"
        merge_adapter(MergeRequest(tiny_adapter, path))
    expected = ["vllm", "serve", str(path), "--served-model-name", "mine", "--host", "127.0.0.1", "--port", "8000"]
    handover = of({"mine": path})
    assert (handover.exports, words(handover)) == ((), [*expected, "--allowed-origins", "[]"])
    with pytest.raises(InputError, match="mine, yours are different models"):
        of({"mine": path, "yours": path})


def test_adapters_that_must_be_merged_are_named_with_the_reasons(two_adapters: dict[str, Path], tmp_path: Path) -> None:
    dora = change_settings(two_adapters["health"], tmp_path / "dora", use_dora=True)
    whole = change_settings(two_adapters["health"], tmp_path / "whole", modules_to_save=["lm_head"])
    with pytest.raises(InputError) as refused:
        of({"dora": dora, "whole": whole, "finance": two_adapters["finance"]})
    assert f"dora must be merged (--use-dora: they know plain LoRA only): slmtune merge {dora}" in str(refused.value)
    assert "whole must be merged (--modules-to-save" in str(refused.value)
    assert "finance must" not in str(refused.value)


def test_what_one_vllm_cannot_serve_together_is_refused(
    two_adapters: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    changed = make_adapter(tmp_path / "changed", tiny_model, 5, chat_template="{{ messages[0].content }}")
    with pytest.raises(InputError, match="health, changed have different tokenizers or chat templates"):
        of({"health": two_adapters["health"], "changed": changed})
    encoder = write_encoder_adapter(tmp_path / "news", write_encoder(tmp_path / "bert", "bert"), NEWS)
    with pytest.raises(InputError, match="news is an encoder"):
        of({"news": encoder})
    with pytest.raises(InputError, match=f"Two models would be called '{tiny_model.name}'"):
        of({tiny_model.name: two_adapters["health"]})


def test_gguf_file_is_not_for_vllm(tmp_path: Path) -> None:
    file = tmp_path / "model-q4_0.gguf"
    file.touch()
    with pytest.raises(InputError, match=r"mine is a GGUF file, for llama\.cpp"):
        of({"mine": file})


def test_command_prints_one_line_per_step_or_json(two_adapters: dict[str, Path], tmp_path: Path) -> None:
    served = [f"{name}={path}" for name, path in two_adapters.items()]
    done = slmtune("serve", *served, "--print-vllm-command", cwd=tmp_path)
    handover = of(two_adapters)
    exports, command = [export.command for export in handover.exports], shlex.join(handover.command)
    assert done.stdout.splitlines() == [*exports, command]
    data = json.loads(slmtune("serve", *served, "--print-vllm-command", "--json", cwd=tmp_path).stdout)
    assert data == {"exports": exports, "vllm": command}


def test_only_named_origins_may_use_vllm(two_adapters: dict[str, Path]) -> None:
    assert values(of(two_adapters), "--allowed-origins") == ["[]"]  # vLLM itself would answer pages of every site
    named = ServeOptions(cors_origins=("https://example.org",))
    assert values(of(two_adapters, options=named), "--allowed-origins") == ['["https://example.org"]']


@pytest.mark.parametrize(
    "limit", [{"requests_per_minute": 5}, {"concurrency": 2}, {"deadline": 3.0}, {"log_prompts": True}], ids=str
)
def test_limits_that_vllm_lacks_are_refused(two_adapters: dict[str, Path], limit: dict[str, Any]) -> None:
    [name] = limit
    with pytest.raises(InputError, match=f"vLLM has nothing like --{name.replace('_', '-')}"):
        of(two_adapters, options=ServeOptions(**limit))
