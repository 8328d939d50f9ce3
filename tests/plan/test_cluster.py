"""Several GPUs and machines: the commands that start a training, the configurations that they need, and what it takes."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import InputError
from finetune.plan import Device
from finetune.plan.cluster.capacity import MEASURED, plan_capacity, read_gpus
from finetune.plan.cluster.launch import Launch, plan_launch, write_files
from finetune.plan.cluster.machines import Cluster, read_cluster
from finetune.recipe import AdapterRecipe

from ..command import ROOT, run

GIB = 2**30
# The shapes of Qwen2.5-72B and Llama-3.1-405B, from their published config.json.
QWEN_72B = {
    "model_type": "qwen2",
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}
LLAMA_405B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 16384,
    "intermediate_size": 53248,
    "num_hidden_layers": 126,
    "num_attention_heads": 128,
    "num_key_value_heads": 8,
}
SHARDED = [(QWEN_72B, "localhost:2", 24, 512), (LLAMA_405B, "node1:8", 80, 1024), (LLAMA_405B, "a,b:4", 80, 1024)]


def launch(
    folder: Path, shape: dict[str, object], machines: str, memory: int, length: int, corpus: str = "corpus"
) -> Launch:
    config = {**shape, "tie_word_embeddings": False, "max_position_embeddings": 32768}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    recipe = AdapterRecipe(model=str(folder), max_length=length)
    device = Device("gpu", memory * GIB, is_given=True)
    return plan_launch(recipe, read_cluster(machines), device, ["train"], corpus, folder / "adapter")


@pytest.mark.parametrize("text", ["", "8", "node1", "node1:0", "node1,:8", "node1;rm:8"])
def test_machines_in_another_form_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--print-launch node1,node2:8"):
        read_cluster(text)


def test_model_that_fits_is_trained_by_slmtune_on_each_machine() -> None:
    recipe, cluster = AdapterRecipe(model="smollm2-1.7b"), Cluster(("a", "b"), 2)
    device = Device("gpu", 24 * GIB, is_given=True)
    planned = plan_launch(recipe, cluster, device, ["train", "--domain", "my news"], Path("corpus"), Path("adapter"))
    assert planned.engine == "slmtune"
    assert not planned.files
    assert planned.commands["b"] == (
        "torchrun --nnodes=2 --nproc-per-node=2 --node-rank=1 --master-addr=a --master-port=29500 "
        "-m finetune train --domain 'my news'"
    )


@pytest.mark.parametrize(("shape", "machines", "memory", "length"), SHARDED)
def test_model_that_fits_on_no_gpu_is_divided_among_them(
    tmp_path: Path, shape: dict[str, object], machines: str, memory: int, length: int
) -> None:
    planned = launch(tmp_path, shape, machines, memory, length)
    assert planned.engine == "trl"
    assert planned.peak_bytes < memory * GIB


def test_trl_is_not_handed_a_corpus_at_an_address(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"TRL, which divides it .* reads no corpus at s3://shop/corpus"):
        launch(tmp_path, QWEN_72B, "localhost:2", 24, 512, "s3://shop/corpus")


def test_model_that_even_a_share_of_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Even with the base model divided among 2 GPUs"):
        launch(tmp_path, LLAMA_405B, "node1:2", 80, 1024)


@pytest.mark.parametrize(("shape", "machines", "memory", "length"), SHARDED)
def test_accelerate_reads_the_configurations_and_trl_the_settings(
    tmp_path: Path, shape: dict[str, object], machines: str, memory: int, length: int
) -> None:
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from trl import ModelConfig, ScriptArguments, SFTConfig, TrlParser

    planned = launch(tmp_path, shape, machines, memory, length)
    write_files(planned)
    cluster = read_cluster(machines)
    for file, kind in zip(planned.files, ("FSDP", "DEEPSPEED"), strict=True):
        config = load_config_from_file(file)
        assert isinstance(config, ClusterConfig)
        assert config.distributed_type == kind
        assert (config.num_processes, config.num_machines) == (cluster.size, len(cluster.hosts))
    for commands in (planned.commands, planned.alternative):
        for rank, command in enumerate(commands.values()):
            accelerate, verb, *words = shlex.split(command)
            assert (accelerate, verb) == ("accelerate", "launch")
            given = launch_command_parser().parse_args(words)
            assert (given.module, given.training_script) == (True, "trl.scripts.sft")
            merged, _, _ = _validate_launch_command(given)
            assert (merged.machine_rank, merged.mixed_precision) == (rank, "bf16")
            assert (merged.use_fsdp, merged.use_deepspeed) == (
                commands is planned.commands,
                commands is planned.alternative,
            )
            kinds: Any = (ScriptArguments, SFTConfig, ModelConfig)
            parser = TrlParser(kinds)
            settings, unknown = argparse.ArgumentParser.parse_known_args(parser, given.training_script_args)
            assert not unknown
            assert settings.bnb_4bit_quant_storage == "bfloat16"
            assert settings.lora_target_modules == ["all-linear"]
            rows = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
            assert rows * cluster.size == AdapterRecipe().effective_batch


def test_print_launch_needs_the_memory_of_a_gpu(tmp_path: Path) -> None:
    done = run("train", "--print-launch", "a,b:2", "--model", "smollm2-135m", cwd=tmp_path)
    assert done.returncode == 2
    assert "--memory 24GiB" in done.stderr
    done = run("train", "--print-launch=a,b:2", "--memory", "24GiB", "--model", "smollm2-135m", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "# on b\ntorchrun --nnodes=2" in done.stdout
    assert done.stdout.rstrip().endswith("-m finetune train --memory 24GiB --model smollm2-135m")


def test_capacity_is_marked_by_what_it_rests_on() -> None:
    capacity = plan_capacity(AdapterRecipe(model="smollm2-135m"), 10_000_000)
    *gpus, cpu = capacity.offers
    assert cpu.basis == "measured"
    assert {offer.basis for offer in gpus} == {"estimate"}
    assert all(offer.source.startswith("https://") for offer in gpus)
    assert cpu.hours == pytest.approx(10_000_000 / MEASURED[0].tokens_per_second / 3600)
    other = plan_capacity(AdapterRecipe(model="smollm2-360m"), 10_000_000).offers[-1]
    assert other.basis == "scaled from a measurement"
    assert other.tokens_per_second < cpu.tokens_per_second / 2


def test_measured_rates_are_those_of_the_benchmarks() -> None:
    benchmarks = (ROOT / "docs/benchmarks.md").read_text("utf-8")
    for measured in MEASURED:
        assert f"| slmtune | {measured.tokens_per_second} |" in benchmarks


def test_prices_have_sources_and_can_be_set() -> None:
    assert all(bool(gpu.price_source) == bool(gpu.usd_per_hour) for gpu in read_gpus())
    for offer in plan_capacity(AdapterRecipe(model="qwen2.5-1.5b"), 10_000_000, price=2.0).offers[:-1]:
        assert offer.usd == pytest.approx((2 * offer.hours, 2 * offer.hours))


def test_capacity_of_a_corpus_counts_its_tokens(tiny_corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = run("plan", "--cluster", "--corpus", tiny_corpus, "--model", tiny_model, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tokens"] > 1000
    done = run("plan", "--cluster", "--tokens", "many", cwd=tmp_path)
    assert done.returncode == 2
    assert "--tokens 20M" in done.stderr
