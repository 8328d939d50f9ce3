from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from finetune.cli.render.plan import render_plan
from finetune.errors import InputError
from finetune.machine import read_size
from finetune.models.presets import PRESETS
from finetune.plan import Device, RowSizes, divide_to_fit, plan, require_fit
from finetune.plan.memory import Batch, activation_bytes, compute_bytes, estimate
from finetune.plan.published import PUBLISHED
from finetune.plan.shapes import FAMILIES, make_shape
from finetune.recipe import AdapterRecipe
from finetune.records import Example, Message

from ..command import run
from ..corpora import write_corpus

GIB = 2**30
SIZES: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 200,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 331,
    "pad_token_id": 0,
}
BIASED = [("llama", {"attention_bias": True, "mlp_bias": True}), ("phi", {"qk_layernorm": True})]


def real(kind: str, **more: Any) -> Any:
    """A model of the real class on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **SIZES | more)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("kind", "more"), [*((kind, {}) for kind in FAMILIES), *BIASED, ("llama", {"tie_word_embeddings": True})]
)
def test_parameters_are_those_of_the_real_class(kind: str, more: dict[str, Any]) -> None:
    model = real(kind, **more)
    shape = make_shape({"model_type": kind, **SIZES, **more})
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("kind", FAMILIES)
def test_adapter_has_as_many_weights_as_that_of_peft(kind: str) -> None:
    from peft import LoraConfig, get_peft_model

    some = ("qkv_proj",) if kind == "phi3" else ("q_proj", "v_proj")
    for recipe in (
        AdapterRecipe(lora_r=5),
        AdapterRecipe(lora_r=5, target_modules=some),
        AdapterRecipe(
            lora_r=5, target_modules=some, use_dora=True, rank_pattern={f"layers.1.self_attn.{some[0]}": 2, some[0]: 9}
        ),
        AdapterRecipe(lora_r=5, target_modules=some, modules_to_save=("lm_head", "embed_tokens")),
    ):
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=5,
            target_modules=recipe.target_modules if isinstance(recipe.target_modules, str) else [*some],
            use_dora=recipe.use_dora,
            rank_pattern={**recipe.rank_pattern},
            modules_to_save=[*recipe.modules_to_save] or None,
        )
        model = get_peft_model(real(kind, tie_word_embeddings=False), config)
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        bias = SIZES["vocab_size"] if kind == "phi" and recipe.modules_to_save else 0  # of the head
        assert make_shape({"model_type": kind, **SIZES}).adapter_parameters(recipe) == trained - bias


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_have_the_presets_parameters(name: str) -> None:
    assert make_shape(PUBLISHED[name]).parameters == PRESETS[name].parameters


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_planned_activations_are_those_that_autograd_keeps(kind: str, rows: int, dtype: Any) -> None:
    tokens = 64
    actual = kept_by_autograd(kind, rows, tokens, dtype)
    batch = Batch(rows * tokens, tokens, rows)
    recipe = AdapterRecipe(lora_r=7, lora_dropout=0.1, compute_dtype=dtype)  # rows that share no prefix
    planned = activation_bytes(make_shape({"model_type": kind, **SIZES}), recipe, batch, Device("cpu", GIB))
    assert actual == pytest.approx(planned, rel=0.03)  # the plan leaves out what is kept once and not per block


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_planned_activations_of_padded_rows_are_those_that_autograd_keeps(kind: str, dtype: Any) -> None:
    actual = kept_by_autograd(kind, 3, 64, dtype, padded=True)
    recipe = AdapterRecipe(lora_r=7, packing=False, compute_dtype=dtype)
    planned = activation_bytes(
        make_shape({"model_type": kind, **SIZES}), recipe, Batch(3 * 64, 64, 3), Device("cpu", GIB)
    )
    assert actual == pytest.approx(planned, rel=0.07)


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "phi"])
def test_planned_activations_of_a_shared_prefix_are_those_that_autograd_keeps(kind: str) -> None:
    rows, tokens, prefix = 4, 64, 40
    actual = kept_by_autograd(kind, rows, tokens, "float32", prefix=prefix)
    batch = RowSizes([tokens] * rows, [1] * rows, prefix).largest(rows, tokens)
    planned = activation_bytes(
        make_shape({"model_type": kind, **SIZES}), AdapterRecipe(lora_r=7), batch, Device("cpu", GIB)
    )
    assert actual == pytest.approx(planned, rel=0.07)


def kept_by_autograd(kind: str, rows: int, tokens: int, dtype: str, *, padded: bool = False, prefix: int = 0) -> int:
    """Bytes that the forward pass of a LoRA model keeps, without parameters; shared memory counts once.

    The embeddings need no gradient, so the first block keeps less: the difference between two and three blocks is what
    a block keeps, and the result is that for all three.
    """
    attention = None if padded else "slmtune_packed"
    batches = [_pad(rows, tokens) if padded else _pack(rows, tokens, prefix) for _ in range(2)]
    sizes = [_kept_by(kind, batch, attention, dtype, layers) for batch, layers in zip(batches, (2, 3), strict=True)]
    return 3 * (sizes[1] - sizes[0])


def _pad(rows: int, tokens: int) -> dict[str, Any]:
    """Rows of different lengths, padded to `tokens`."""
    import torch

    ids, places = torch.randint(3, 331, (rows, tokens)), torch.arange(tokens)
    real = places < tokens - 5 * torch.arange(rows)[:, None]
    return {"input_ids": ids, "attention_mask": real.long(), "labels": torch.where(places == 9, ids, -100)}


def _pack(rows: int, tokens: int, prefix: int) -> dict[str, Any]:
    """Rows of `tokens` tokens, of which they share the first `prefix`, packed."""
    import numpy as np

    from finetune.train.batches.packing import pack
    from finetune.train.batches.rows import TokenRow

    draw = np.random.default_rng(0)
    supervised = np.arange(tokens) == tokens - 1
    ids = draw.integers(3, 331, (rows, tokens)).astype(np.int32)
    ids[:, :prefix] = ids[0, :prefix]
    batch = pack([TokenRow(row, supervised) for row in ids], share=prefix > 0)
    return {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "labels": batch.targets,
        "layout": batch.layout,
    }


def _kept_by(kind: str, inputs: dict[str, Any], attention: str | None, dtype: str, layers: int) -> int:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from finetune.train.fast import prefix_attention
    from finetune.train.fast.lora_linear import FusedLinear
    from finetune.train.fast.loss import summed_loss
    from finetune.train.fast.swiglu import replace_swiglu_blocks

    prefix_attention.register()
    config = AutoConfig.for_model(kind, **SIZES | {"num_hidden_layers": layers})
    base = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
    replace_swiglu_blocks(base)
    lora = LoraConfig(task_type="CAUSAL_LM", r=7, target_modules="all-linear")
    lora._register_custom_module({torch.nn.Linear: FusedLinear})
    model = get_peft_model(base, lora).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    tensors: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        tensors.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        summed_loss(model.get_base_model(), inputs)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in tensors.items() if place not in own)


CPU, GPU = Device("cpu", 16 * GIB), Device("gpu", 8 * GIB)


def peak(device: Device, **changes: Any) -> int:
    return plan(AdapterRecipe(**changes), device=device).peak_bytes


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*PUBLISHED]),
    st.sampled_from(["nf4", "int8", "none"]),
    st.sampled_from([CPU, GPU]),
    st.integers(1, 16),
    st.integers(16, 2047),
    st.integers(1, 64),
)
@example("distilbert", "none", GPU, 2, 511, 1)  # an encoder has no mask of a prefix, which longer rows do without
def test_more_never_needs_less(
    model: str, quantization: str, device: Device, rows: int, length: int, rank: int
) -> None:
    length = min(length, PRESETS[model].context - 1)
    chosen: dict[str, Any] = {
        "model": model,
        "quantization": quantization,
        "per_device_train_batch_size": rows,
        "max_length": length,
        "lora_r": rank,
    }
    smallest = peak(device, **chosen)
    for name in ("per_device_train_batch_size", "max_length", "lora_r"):
        assert peak(device, **chosen | {name: chosen[name] + 1}) >= smallest
    assert peak(device, **chosen | {"gradient_checkpointing": True}) <= smallest * 1.05


def test_activations_are_full_words_if_a_gpu_has_no_bfloat16() -> None:
    """Plan and training apply one rule to what torch reports about the GPU."""
    word, half = (plan(AdapterRecipe(), device=replace(GPU, has_bfloat16=has)).breakdown for has in (False, True))
    assert word.activations > 1.7 * half.activations  # a norm keeps its input in float32 anyway
    explicit = AdapterRecipe(compute_dtype="float32")
    assert plan(explicit, device=GPU).breakdown == word


def test_rounded_weights_stand_beside_the_packed_ones() -> None:
    exact, mixed = (plan(AdapterRecipe(compute_dtype=dtype), device=CPU).breakdown for dtype in ("float32", "mixed"))
    linear = 106_168_320  # weights of the linear layers of SmolLM2-135M
    assert mixed.weights - exact.weights == 2 * linear
    assert replace(mixed, weights=exact.weights) == exact


@pytest.mark.parametrize("supported", [True, False])
@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_plan_counts_the_bytes_of_the_precision_of_training(
    supported: bool, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from finetune.models.load import compute_dtype

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: supported or including_emulation
    )
    recipe = AdapterRecipe(compute_dtype=dtype)
    assert compute_bytes(recipe, replace(GPU, has_bfloat16=supported)) == compute_dtype(recipe).itemsize


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*PUBLISHED]), st.integers(1, 32), st.integers(64, 2048), st.integers(1, 64))
def test_suggestion_fits(model: str, rows: int, length: int, gibibytes: int) -> None:
    device, length = Device("cpu", gibibytes * GIB), min(length, PRESETS[model].context)
    recipe = AdapterRecipe(model=model, per_device_train_batch_size=rows, max_length=length)
    result = plan(recipe, device=device)
    assert result.fits == (result.peak_bytes <= result.free_bytes)
    assert sum(asdict(result.breakdown).values()) == result.peak_bytes
    if result.fits:
        assert result.suggestion is None
    elif result.suggestion:
        words = result.suggestion.options.split()
        changes: dict[str, Any] = {}
        for word, following in zip(words, [*words[1:], "--"], strict=True):
            if word.startswith("--"):
                changes[word[2:].replace("-", "_")] = True if following.startswith("--") else following
        tried = plan(AdapterRecipe(**recipe.model_dump(exclude_unset=True) | changes), device=device)
        assert tried.fits
        assert tried.peak_bytes == result.suggestion.peak_bytes


def test_peak_of_a_tiny_batch_is_that_of_reading_the_weights_as_far_as_there_is_room() -> None:
    recipe, rows = AdapterRecipe(per_device_train_batch_size=1, quantization="none"), RowSizes([16], [4])
    result = plan(recipe, device=CPU, rows=rows)
    file = 2 * result.parameters
    assert 0 < result.breakdown.loading < file
    needed = result.peak_bytes - result.breakdown.loading
    tight = plan(recipe, device=replace(CPU, free=needed), rows=rows)
    assert (tight.fits, tight.peak_bytes) == (True, needed)
    assert plan(recipe, device=CPU, rows=RowSizes([900], [4])).breakdown.loading == 0
    # Quantised tensor by tensor, the file is never in memory as a whole.
    assert plan(AdapterRecipe(per_device_train_batch_size=1), device=CPU, rows=rows).breakdown.loading == 0


def test_batch_is_split_without_changing_the_effective_batch() -> None:
    recipe = AdapterRecipe(gradient_accumulation_steps=3)
    whole = plan(recipe, device=CPU).peak_bytes
    split = divide_to_fit(recipe, device=replace(CPU, free=whole - 1))
    assert split.per_device_train_batch_size < recipe.per_device_train_batch_size
    assert split.per_device_train_batch_size * split.gradient_accumulation_steps == 8 * 3
    assert divide_to_fit(recipe, device=replace(CPU, free=whole)) is recipe


def test_batch_grows_without_changing_the_effective_batch() -> None:
    recipe = AdapterRecipe(gradient_accumulation_steps=6)
    peaks = {rows: peak(CPU, per_device_train_batch_size=rows) for rows in (24, 48)}
    grown = divide_to_fit(recipe, device=replace(CPU, free=2 * peaks[48]))
    assert (grown.per_device_train_batch_size, grown.gradient_accumulation_steps) == (48, 1)
    partly = divide_to_fit(recipe, device=replace(CPU, free=2 * peaks[48] - 1))  # half of the memory is left to others
    assert (partly.per_device_train_batch_size, partly.gradient_accumulation_steps) == (24, 2)


@pytest.mark.parametrize("changes", [{"lora_dropout": 0.1}, {"packing": False}])
def test_batch_does_not_grow_where_that_would_change_the_result_or_add_padding(changes: dict[str, Any]) -> None:
    recipe = AdapterRecipe(gradient_accumulation_steps=6, **changes)
    assert divide_to_fit(recipe, device=replace(CPU, free=2**50)) is recipe


def test_rows_of_a_corpus_bound_the_largest_batch() -> None:
    rows = RowSizes([10, 400, 30, 2000], [1, 2, 3, 4], prefix=8)
    assert rows.largest(2, 1024) == Batch(tokens=1416, longest=1024, supervised=7, repeated=16)
    assert rows.largest(3, 1024, padded=True) == Batch(tokens=3072, longest=1024, supervised=9)
    assert plan(AdapterRecipe(), device=CPU, rows=rows).peak_bytes < plan(AdapterRecipe(), device=CPU).peak_bytes


def test_pairs_of_answers_bound_the_largest_batch() -> None:
    """Two conversations a row, of which the prompt is computed once."""
    pairs = RowSizes([100, 400, 300, 200, 90, 90], [10, 20, 30, 40, 50, 50], common=[80, 150, 40])
    assert pairs.largest(2, 1024) == Batch(tokens=420 + 350, longest=400, supervised=170, repeated=2 * 230)
    assert pairs.largest(2, 1024, padded=True) == Batch(tokens=1600, longest=400, supervised=170)
    whole = {method: plan(AdapterRecipe(method=method, eval_steps=0), device=CPU) for method in ("sft", "dpo")}
    assert whole["dpo"].batch_tokens == 2 * whole["sft"].batch_tokens
    assert "8 pairs of answers, each of at most 1024 tokens" in render_plan(whole["dpo"])
    assert whole["dpo"].breakdown.adapter == 1.5 * whole["sft"].breakdown.adapter  # and a copy of its first values


def test_copy_of_the_best_weights_is_counted_where_it_is_kept() -> None:
    last, best = (plan(AdapterRecipe(eval_steps=steps), device=CPU).breakdown.adapter for steps in (0, None))
    assert best == 1.5 * last
    gpu = replace(CPU, kind="gpu")
    assert plan(AdapterRecipe(), device=gpu).breakdown.adapter == last


def test_plan_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from finetune.plan import plan; from finetune.recipe import AdapterRecipe; plan(AdapterRecipe());"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_plan_that_does_not_fit_is_not_a_failure(tmp_path: Path) -> None:
    answer = run("plan", "--model", "gemma-2-2b", "--gpu", "8GiB", "--json", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout)
    assert result["fits"] is False
    assert result["suggestion"]["peak_bytes"] <= 8 * GIB < result["peak_bytes"]
    assert set(result["breakdown"]) == {
        "weights",
        "adapter",
        "optimizer",
        "activations",
        "logits",
        "overhead",
        "loading",
    }


def test_table_names_every_part_and_what_fits(tmp_path: Path) -> None:
    table = run("plan", "--memory", "4GiB", "--max-length", "2048", cwd=tmp_path).stdout
    assert "what fits  --" in table
    assert all(name in table for name in ("weights", "activations", "logits", "peak"))


def test_folder_is_planned_from_its_config_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2", **SIZES}), "utf-8")
    result = plan(AdapterRecipe(model=str(tmp_path)), device=CPU)
    assert result.parameters == make_shape({"model_type": "qwen2", **SIZES}).parameters


def test_gpu_that_is_too_small_is_refused_with_the_largest_batch_that_fits() -> None:
    recipe = AdapterRecipe(model="smollm2-1.7b", max_length=512)
    fits = {rows: peak(GPU, model="smollm2-1.7b", max_length=512, per_device_train_batch_size=rows) for rows in (8, 4)}
    planned = plan(recipe, device=replace(GPU, free=fits[8] - 1))
    with pytest.raises(InputError, match=r"this GPU has .* free\. Try: (.*) \(about") as refusal:
        require_fit(planned)
    assert "Try: --per-device-train-batch-size 4 --gradient-accumulation-steps 2 (about" in str(refusal.value)
    assert fits[4] < fits[8]


def test_family_without_a_plan_trains_with_one_line_about_it(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import OPTConfig, OPTForCausalLM

    from finetune.train import train

    shutil.copytree(tiny_model, tmp_path / "opt")
    config = OPTConfig(
        vocab_size=400, hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=1, num_attention_heads=2
    )
    OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    with caplog.at_level("INFO", "finetune"):
        train(request(tmp_path / "opt", tiny_corpus, tmp_path / "adapter", None))
    lines = [record.getMessage() for record in caplog.records if "plan" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith(
        "Memory use cannot be planned for 'opt' models, which slmtune train trains without a plan"
    )


def test_rows_longer_than_the_context_are_refused() -> None:
    with pytest.raises(InputError, match=r"--max-length 2049 is beyond the context of phi-2, which is 2048 tokens"):
        plan(AdapterRecipe(model="phi-2", max_length=2049), device=CPU)


def test_target_modules_that_no_block_has_are_named() -> None:
    with pytest.raises(InputError, match=r"called q_prj, nothing_like_it\. Did you mean q_proj\? Its layers are q_"):
        plan(AdapterRecipe(target_modules="q_prj, v_proj, nothing_like_it"), device=CPU)


@pytest.mark.parametrize("unpacked", [{"attention_dropout": 0.1}, {}])
def test_padding_is_planned_for(unpacked: dict[str, Any], tmp_path: Path) -> None:
    """One long row among short ones: a rectangle is several times as large as the sum of its rows."""
    rows = RowSizes([1024] + [60] * 99, [30] * 100)
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED["smollm2-135m"] | unpacked), "utf-8")
    packed = plan(AdapterRecipe(), device=CPU, rows=rows)
    padded = plan(AdapterRecipe(model=str(tmp_path), packing=bool(unpacked)), device=CPU, rows=rows)
    assert (packed.batch_tokens, padded.batch_tokens) == (1024 + 7 * 60, 8 * 1024)
    assert padded.breakdown.activations > 5 * packed.breakdown.activations


def test_logits_of_all_tokens_are_planned_for_where_the_model_scales_them() -> None:
    config = {"model_type": "llama", **SIZES, "vocab_size": 100_000}
    batch = Batch(tokens=900, longest=900, supervised=10)
    chunked, full = (
        estimate(make_shape(config | {"model_type": kind}), AdapterRecipe(), batch, CPU).logits
        for kind in ("llama", "granite")
    )
    assert full > 900 * 100_000 * 3 * 4 * 0.95 > 10 * chunked


def test_unknown_family_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba", **SIZES}), "utf-8")
    with pytest.raises(InputError, match="'mamba'"):
        plan(AdapterRecipe(model=str(tmp_path)), device=CPU)


@pytest.mark.parametrize(("text", "size"), [("8GiB", 8 * GIB), ("1.5g", GIB * 3 // 2), ("500 MB", 500 * 2**20)])
def test_sizes_are_read(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["much", "0GiB", "-1", "8GB8"])
def test_invalid_sizes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="GiB"):
        read_size(text)


def request(tiny_model: Path, tiny_corpus: Path, out: Path, free: int | None, **changes: Any) -> Any:
    from finetune.train import TrainRequest

    recipe = AdapterRecipe(model=str(tiny_model), max_length=256, max_steps=2, save_steps=0, eval_steps=0, **changes)
    return TrainRequest(tiny_corpus, out, recipe, memory=free)


def test_train_refuses_what_cannot_fit_and_writes_nothing(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    from finetune.train import train

    with pytest.raises(InputError, match=r"needs about .* free"):
        train(request(tiny_model, tiny_corpus, tmp_path / "adapter", 2**20))
    assert not (tmp_path / "adapter").exists()


def test_train_splits_a_batch_whose_size_the_user_did_not_set(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from finetune.train import plan_training, train

    whole = plan_training(request(tiny_model, tiny_corpus, tmp_path / "a", 64 * GIB)).memory
    assert whole is not None
    with caplog.at_level("INFO", "finetune"):
        result = train(request(tiny_model, tiny_corpus, tmp_path / "a", whole.peak_bytes - 1))
    assert re.search(r"Memory allows [1-4] rows per forward pass instead of 8 .*for the same batch", caplog.text)
    plain = train(request(tiny_model, tiny_corpus, tmp_path / "b", 64 * GIB))
    assert result.tokens == plain.tokens
    assert result.train_loss == pytest.approx(plain.train_loss, rel=1e-4)


def test_train_takes_larger_passes_with_the_same_result_where_memory_allows(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    from finetune.train import plan_training, train

    accumulated = request(tiny_model, tiny_corpus, tmp_path / "a", 64 * GIB, gradient_accumulation_steps=2)
    planned = plan_training(accumulated).memory
    assert planned is not None
    assert planned.batch_size == 16
    fixed = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 8}
    results = [train(accumulated), train(request(tiny_model, tiny_corpus, tmp_path / "b", 64 * GIB, **fixed))]
    assert results[0].tokens == results[1].tokens
    assert results[0].computed_tokens < results[1].computed_tokens
    assert results[0].train_loss == pytest.approx(results[1].train_loss, rel=1e-5)


def test_training_asks_torch_whether_the_gpu_has_bfloat16(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from finetune.train import fit_memory, plan_training

    monkeypatch.setattr(fit_memory, "this_device", lambda memory: GPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    activations = []
    for supported in (True, False):
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True, supported=supported: supported or including_emulation,
        )
        planned = plan_training(request(tiny_model, tiny_corpus, tmp_path / "a", 64 * GIB)).memory
        assert planned is not None
        activations.append(planned.breakdown.activations)
    assert activations[1] > 1.7 * activations[0]


def test_a_gpu_that_only_torch_knows_is_planned_for(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from finetune.train import plan_training

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (7 * GIB, 8 * GIB))
    planned = plan_training(request(tiny_model, tiny_corpus, tmp_path / "a", None)).memory
    assert planned is not None
    assert (planned.device, planned.free_bytes, planned.memory_source) == ("gpu", 7 * GIB, "free")


def test_a_containers_limit_refuses_a_run_and_memory_overrules_it(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune import machine
    from finetune.train import train

    (tmp_path / "self").write_text("0::/\n", "utf-8")
    for name, value in (("memory.max", 500 * 2**20), ("memory.current", 400 * 2**20)):
        (tmp_path / name).write_text(str(value), "utf-8")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "self")
    with pytest.raises(InputError, match=r"this machine has 100 MiB \(104857600 bytes\) free.*--memory"):
        train(request(tiny_model, tiny_corpus, tmp_path / "adapter", None))
    train(request(tiny_model, tiny_corpus, tmp_path / "adapter", 16 * GIB))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_memory_bounds_the_command_and_is_named_in_its_answers(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    command = ["train", "--model", tiny_model, "--corpus", tiny_corpus, "--out", "adapter", "--memory", "64MiB"]
    refused = run(*command, cwd=tmp_path)
    assert refused.returncode == 2
    assert "--memory allows 64 MiB (67108864 bytes)" in refused.stderr
    memory = json.loads(run(*command, "--dry-run", "--json", cwd=tmp_path).stdout)["memory"]
    planned = json.loads(run("plan", "--model", tiny_model, "--memory", "64MiB", "--json", cwd=tmp_path).stdout)
    for answer in (memory, planned):
        assert (answer["free_bytes"], answer["memory_source"], answer["fits"]) == (64 * 2**20, "given", False)


def test_batch_size_set_by_the_user_is_not_changed(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    from finetune.train import plan_training, train

    whole = plan_training(request(tiny_model, tiny_corpus, tmp_path / "a", 64 * GIB)).memory
    assert whole is not None
    fixed = request(tiny_model, tiny_corpus, tmp_path / "a", whole.peak_bytes - 1, per_device_train_batch_size=8)
    with pytest.raises(InputError, match="--per-device-train-batch-size 4 --gradient-accumulation-steps 2"):
        train(fixed)


def test_split_batch_stays_split_when_a_run_resumes_with_more_memory(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    import signal
    from dataclasses import replace

    from finetune.errors import StoppedError
    from finetune.train import Step, plan_training, train

    def stop(progress: Step) -> None:
        if progress.step == 1:
            signal.raise_signal(signal.SIGTERM)

    whole = plan_training(request(tiny_model, tiny_corpus, tmp_path / "a", 64 * GIB)).memory
    assert whole is not None
    short = request(tiny_model, tiny_corpus, tmp_path / "a", whole.peak_bytes - 1)
    train(short)
    with pytest.raises(StoppedError):
        train(replace(short, output_dir=tmp_path / "b"), stop)
    train(replace(short, output_dir=tmp_path / "b", resume=True, memory=64 * GIB))
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_predicted_peak_of_a_real_run_is_near_the_measured_one(real_model: Path, tmp_path: Path) -> None:
    """A wide bound, because other tests run at the same time; benchmarks/plan_accuracy.py has the narrow one."""
    words = "profit " * 60
    rows = [
        Example(str(number), (Message("user", f"{number} {words}"), Message("assistant", words)), "chat")
        for number in range(10, 26)
    ]
    write_corpus(tmp_path / "corpus", {"train": rows})
    command: list[object] = ["train", "--json", "--corpus", "corpus", "--model", real_model, "--out", "out"]
    command += ["--per-device-train-batch-size", 8, "--max-steps", 2, "--eval-steps", 0, "--save-steps", 0]
    planned = json.loads(run(*command, "--dry-run", cwd=tmp_path).stdout)
    trained = json.loads(run(*command, cwd=tmp_path, fresh=True).stdout)  # it measures its own memory
    assert planned["memory"]["peak_bytes"] == pytest.approx(trained["peak_memory_bytes"], rel=0.25)
