"""What config.json rules out is refused before weights are loaded, and a changed config.json is noticed."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from finetune.artifacts import Adapter
from finetune.errors import BaseModelError, InputError, StoppedError
from finetune.models.find import base_of, find_base
from finetune.recipe import AdapterRecipe
from finetune.train import Step, TrainRequest, plan_training, train

from ..tiny_shape import WIDTHS


def request(model: Path, corpus: Path, out: Path, **changes: Any) -> TrainRequest:
    settings = {"model": str(model), "max_steps": 2, "eval_steps": 0, "save_steps": 0} | changes
    return TrainRequest(corpus, out, AdapterRecipe(**settings))


def copy_model(model: Path, folder: Path, **settings: object) -> Path:
    """A copy of a model with other settings in its config.json; None removes a setting."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text("utf-8")) | settings
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept), "utf-8")
    return folder


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("targets", ["q_prj", "q_prj,v_proj", "self_attn.q_prj", ".*[.]q_prj"])
def test_unknown_target_module_is_named_with_the_nearest(
    targets: str, tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    expected = (
        rf"--target-modules: no layer of the model is called {re.escape(targets.split(',')[0])}\. Did you mean q_proj\?"
    )
    with pytest.raises(InputError, match=expected + r" Its layers are .*q_proj, k_proj"):
        train(request(tiny_model, tiny_corpus, tmp_path / "out", target_modules=targets))


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rank_pattern": {"q_prj": 8}}, r"--rank-pattern q_prj=8: no layer .* Did you mean q_proj\?"),
        (
            {"alpha_pattern": {"v_proj": 8}, "target_modules": "q_proj"},
            r"--alpha-pattern v_proj=8: no layer with LoRA matrices is called v_proj\.",
        ),
        (
            {"modules_to_save": "nrm"},
            r"--modules-to-save nrm: no module with weights has that name\. Did you mean norm\?",
        ),
        ({"modules_to_save": "mlp"}, r"--modules-to-save mlp: model\.layers\.0\.mlp contains other modules"),
        ({"modules_to_save": "q_proj"}, r"q_proj is quantised to nf4, .* --quantization none"),
        (
            {"target_modules": "q_proj,embed_tokens", "use_dora": True},
            r"embed_tokens .* --modules-to-save embed_tokens",
        ),
        ({"target_modules": "lm_head"}, r"lm_head of this model is its embeddings and its output head at once"),
    ],
)
def test_method_that_the_model_cannot_take_is_refused(
    changes: dict[str, Any], expected: str, tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        train(request(tiny_model, tiny_corpus, tmp_path / "out", **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_weights")
def test_stacks_of_experts_are_not_quantised_in_silence(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("mixtral", vocab_size=len(tokenizer), **WIDTHS, **experts)
    )
    model.save_pretrained(tmp_path / "experts")
    tokenizer.save_pretrained(tmp_path / "experts")
    with pytest.raises(
        InputError, match=r"\d\d% of the weights .* in MixtralExperts, which bitsandbytes does not quantise"
    ):
        train(request(tmp_path / "experts", tiny_corpus, tmp_path / "out"))


def test_one_target_module_is_a_list_of_one(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    result = train(request(tiny_model, tiny_corpus, tmp_path / "out", target_modules="q_proj"))
    weights = load_file(result.adapter / "adapter_model.safetensors")
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in weights} == {"q_proj"}


@pytest.mark.usefixtures("no_weights")
def test_rows_longer_than_the_context_are_refused(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--max-length 513 is beyond the context .* 512 tokens"):
        train(request(tiny_model, tiny_corpus, tmp_path / "out", max_length=513))


def test_default_length_is_lowered_to_the_context(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    assert plan_training(request(tiny_model, tiny_corpus, tmp_path / "out")).recipe.max_length == 512


@pytest.mark.usefixtures("no_weights")
def test_tokens_without_an_embedding_are_refused(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    model = copy_model(tiny_model, tmp_path / "model", vocab_size=300)
    with pytest.raises(InputError, match=r"makes token ids up to 3\d\d, but the model has embeddings for 300 tokens"):
        train(request(model, tiny_corpus, tmp_path / "out"))


def test_run_does_not_resume_with_a_changed_config(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    def stop(progress: Step) -> None:
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(StoppedError):
        train(request(tiny_model, tiny_corpus, tmp_path / "out"), stop)
    changed = copy_model(tiny_model, tmp_path / "model", rms_norm_eps=1e-3)
    again = request(changed, tiny_corpus, tmp_path / "out")
    with pytest.raises(InputError, match=r"the base model's config\.json has changed"):
        train(TrainRequest(again.corpus, again.output_dir, again.recipe, resume=True))


def test_adapter_is_not_used_on_a_changed_config(tiny_adapter: Path, tiny_model: Path, tmp_path: Path) -> None:
    adapter = Adapter.open(tiny_adapter)
    same = copy_model(tiny_model, tmp_path / "same", transformers_version="1.0", dtype="float16", use_cache=False)
    assert base_of(adapter, str(same)).folder == same
    changed = copy_model(tiny_model, tmp_path / "changed", rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    with pytest.raises(BaseModelError, match=r"config\.json of changed has changed"):
        base_of(adapter, str(changed))


def test_copy_with_a_changed_config_does_not_hide_the_model(
    tiny_adapter: Path, tiny_model: Path, tmp_path: Path
) -> None:
    find_base(str(tiny_model))
    find_base(str(copy_model(tiny_model, tmp_path / "changed", rms_norm_eps=1e-3)))
    assert base_of(Adapter.open(tiny_adapter)).folder == tiny_model


def test_base_model_found_in_a_copy_keeps_its_name(tiny_adapter: Path, tiny_model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_model, tmp_path / "model")
    find_base(str(copy))
    base = base_of(Adapter.open(tiny_adapter))
    assert (base.folder, base.name) == (copy, tiny_model.name)
    find_base(str(tiny_model))


def test_adapter_without_a_recorded_config_opens(tiny_adapter: Path, tiny_model: Path, tmp_path: Path) -> None:
    adapter = Adapter.open(tiny_adapter)
    del adapter.manifest["parents"]["base_model"]["config_fingerprint"]
    changed = copy_model(tiny_model, tmp_path / "changed", rms_norm_eps=1e-3)
    assert base_of(adapter, str(changed)).folder == changed
