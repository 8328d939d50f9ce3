"""The installed command: its output, its exit codes, and what is left after wrong use."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from finetune.cli import cli
from finetune.cli.options import CORPUS, PATH
from finetune.errors import ConfigError
from finetune.evaluate import EvalRequest, evaluate
from finetune.prepare import PrepareRequest, prepare
from finetune.recipe import AdapterRecipe, domain_names
from finetune.recipe.option_fields import fields_of
from finetune.recipe.options import (
    ChatOptions,
    EvalOptions,
    PrepareOptions,
    ServeOptions,
    ShowOptions,
    SweepOptions,
)

from ..command import ROOT, Command
from ..command import run as slmtune

ANY_LENGTH = ("--max-truncated", "100%")  # the tiny model's tokenizer makes several tokens of most words


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str, code: int = 2) -> None:
    """Expect one paragraph on stderr that contains `parts`, the exit code, nothing on stdout and no traceback."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("Error: ")
    for part in parts:
        assert part in error


def left_in(folder: Path, *expected: str) -> bool:
    return sorted(path.name for path in folder.iterdir()) == sorted(expected)


@pytest.fixture(scope="module")
def workspace(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage has run on the finance sample with the tiny model, each with --json."""
    folder = tmp_path_factory.mktemp("work")
    quick = ("--model", tiny_model, "--max-steps", 2, *ANY_LENGTH)
    (folder / "answers").mkdir()
    for name, arguments in {
        "prepare": ("prepare", "--domain", "finance", "--sample", "--limit", 24),
        "train": ("train", "--domain", "finance", *quick),
        "eval": ("eval", "--domain", "finance", "--limit", 12, "--max-new-tokens", 4),
        "merge": ("merge", "--domain", "finance"),
    }.items():
        done = slmtune(*arguments, "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
        (folder / "answers" / name).write_text(done.stdout, "utf-8")
    return folder


CONTRACT = {
    "prepare": {"corpus", "splits", "dropped", "scrubbed", "sources", "fingerprint", "seconds"},
    "train": {
        *("adapter", "steps", "epochs", "train_loss", "eval_loss", "tokens", "supervised_tokens"),
        *("tokens_per_second", "peak_memory_bytes", "truncated", "held_out_truncated", "seconds", "resumed_from"),
    },
    "eval": {"report", "tasks"},
    "merge": {
        *("model", "onto", "verified", "max_abs_logit_diff", "mean_kl", "greedy_agreement"),
        *("seconds", "peak_memory_bytes"),
    },
}


@pytest.mark.parametrize("stage", CONTRACT)
def test_json_is_one_object_with_the_documented_keys(workspace: Path, stage: str) -> None:
    answer = json.loads((workspace / "answers" / stage).read_text("utf-8"))
    assert CONTRACT[stage] <= set(answer)


@pytest.mark.parametrize("stage", ["eval", "merge"])
def test_json_has_no_key_that_nothing_computes(workspace: Path, stage: str) -> None:
    answer = json.loads((workspace / "answers" / stage).read_text("utf-8"))
    assert None not in answer.values()


def test_eval_answers_by_task(workspace: Path) -> None:
    answer = json.loads((workspace / "answers" / "eval").read_text("utf-8"))
    assert set(answer["tasks"]) == {"news", "questions"}
    assert answer["tasks"]["news"]["n"] == 12


def test_stages_find_each_other_in_the_workspace(workspace: Path) -> None:
    assert left_in(workspace / "runs" / "finance", "corpus", "adapter", "eval", "model")


def test_no_artifact_contains_a_path_or_a_name_of_this_machine(workspace: Path) -> None:
    for file in (workspace / "runs").rglob("*"):
        if file.suffix in {".json", ".md", ".jsonl", ".html"} and file.name != "tokenizer.json":
            text = file.read_text("utf-8")
            assert str(workspace) not in text, file
            assert socket.gethostname() not in text or len(socket.gethostname()) < 5, file


def test_second_run_needs_overwrite(workspace: Path) -> None:
    assert_refused(slmtune("prepare", "--domain", "finance", "--sample", cwd=workspace), "exists", "--overwrite")


def test_dry_run_writes_nothing(workspace: Path, tiny_model: Path, tmp_path: Path) -> None:
    corpus = workspace / "runs" / "finance" / "corpus"
    done = slmtune("train", "--corpus", corpus, "--model", tiny_model, "--dry-run", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["steps"] > 0
    assert left_in(tmp_path)


def test_own_csv_needs_no_domain(tiny_model: Path, tmp_path: Path) -> None:
    rows = [f"sentence number {number} is {label},{label}" for number in range(30) for label in ("good", "bad")]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n", "utf-8")
    prepared = slmtune("prepare", "--source", "reviews.csv", "--split-ratio", "0.6/0.1/0.3", cwd=tmp_path)
    assert prepared.stdout.splitlines()[-1].split(maxsplit=1) == ["next", "slmtune train"], prepared.stderr
    trained = slmtune("train", "--model", tiny_model, "--max-steps", 1, cwd=tmp_path)
    assert "next         slmtune eval" in trained.stdout, trained.stderr
    assert left_in(tmp_path / "runs" / "custom", "corpus", "adapter")


def test_the_next_command_finds_artifacts_outside_the_workspace(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("question,answer\n" + "".join(f"does pump {n} run,yes {n}\n" for n in range(9)))
    corpus = slmtune("prepare", "--source", "r.csv", "--output-dir", "my corpus", cwd=tmp_path)
    assert corpus.stdout.splitlines()[-1].split(maxsplit=1) == ["next", "slmtune train --corpus 'my corpus'"]
    options = ("--corpus", "my corpus", "--output-dir", "mine", "--model", tiny_model, "--max-steps", 1)
    adapter = slmtune("train", *options, cwd=tmp_path)
    assert adapter.stdout.splitlines()[-1].split(maxsplit=1) == ["next", "slmtune eval mine --corpus 'my corpus'"]


def test_one_name_for_two_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("title,body\nMast,A pole\n", "utf-8")
    done = slmtune("prepare", "--source", "r.csv", "--map", "text=title", "--map", "text=body", cwd=tmp_path)
    assert_refused(done, "--map text is given twice")


def test_explicit_paths_need_no_workspace(workspace: Path, tmp_path: Path) -> None:
    artifacts = workspace / "runs" / "finance"
    arguments = ("--corpus", artifacts / "corpus", "--task", "news", "--limit", 4, "--out", tmp_path / "report")
    assert slmtune("eval", artifacts / "adapter", *arguments, "--no-forgetting", cwd=tmp_path).returncode == 0
    assert left_in(tmp_path, "report")


def test_chat_answers_one_question(workspace: Path) -> None:
    done = slmtune("chat", "--domain", "finance", "--prompt", "Hello?", "--max-new-tokens", 4, "--json", cwd=workspace)
    assert isinstance(json.loads(done.stdout)["answer"], str)


def test_missing_folder_is_not_treated_as_a_hub_id(tmp_path: Path) -> None:
    refuse(tmp_path, ("serve", "news=runs/nothing"), "runs/nothing", "slmtune train")


def test_log_lines_can_be_json(workspace: Path) -> None:
    arguments = ("--domain", "finance", "--limit", 4, "--task", "news", "--overwrite", "--log-format", "json")
    lines = slmtune("eval", "--no-forgetting", *arguments, cwd=workspace).stderr.splitlines()
    assert lines
    assert all({"time", "level", "message"} <= set(json.loads(line)) for line in lines)


@pytest.mark.parametrize(("flags", "expected"), [((), set()), (("--verbose",), {"a library's word", "planted"})])
def test_logs_of_libraries_appear_only_with_verbose(tmp_path: Path, flags: tuple[str, ...], expected: set[str]) -> None:
    planted = """
import atexit, logging, warnings
for logger, text in {
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",  # on CPUs with AVX512-BF16, when imported
    "library": "a library's word",
}.items():
    atexit.register(logging.getLogger(logger).warning, text)
atexit.register(warnings.warn, "planted")
"""
    (tmp_path / "sitecustomize.py").write_text(planted, "utf-8")
    done = slmtune("models", "--log-format", "json", *flags, cwd=tmp_path, env=searching(tmp_path))
    messages = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert {
        text for text in ("a library's word", "planted", "gemm") if any(text in line for line in messages)
    } == expected
    assert len(messages) == len(expected)


def test_domains_lists_every_bundled_domain(tmp_path: Path) -> None:
    answer = json.loads(slmtune("domains", "--json", cwd=tmp_path).stdout)
    assert [domain["name"] for domain in answer["domains"]] == domain_names()


def test_models_lists_the_presets(tmp_path: Path) -> None:
    names = {model["name"] for model in json.loads(slmtune("models", "--json", cwd=tmp_path).stdout)["models"]}
    promised = "smollm2-135m smollm2-360m smollm2-1.7b qwen2.5-0.5b qwen2.5-1.5b llama-3.2-1b phi-2 gemma-2b"
    assert {*promised.split(), "gemma-2-2b", "gemma-3-270m", "distilbert", "mobilebert"} <= names


def test_models_says_which_presets_are_encoders(tmp_path: Path) -> None:
    encoders = {"distilbert", "mobilebert", "minilm-l6", "bert-base", "modernbert-base"}
    answer = json.loads(slmtune("models", "--json", cwd=tmp_path).stdout)
    assert {model["name"] for model in answer["models"] if model["kind"] == "encoder"} == encoders
    lines = slmtune("models", cwd=tmp_path).stdout.splitlines()
    assert {line.split()[0] for line in lines if " encoder " in line} == encoders


def test_models_for_a_task_are_those_that_can_do_it(tmp_path: Path) -> None:
    answer = json.loads(slmtune("models", "--task", "extraction", "--json", cwd=tmp_path).stdout)
    assert {model["preset"]["kind"] for model in answer["models"]} == {"encoder"}
    header, first, *_ = slmtune("models", "--task", "classification", cwd=tmp_path).stdout.splitlines()
    assert header.split() == "name kind weights context minutes memory F1 latency".split()
    assert first.split()[1] == "encoder"


def test_every_recipe_field_is_a_flag_of_train(tmp_path: Path) -> None:
    text = slmtune("train", "--help", cwd=tmp_path).stdout
    for field in AdapterRecipe.model_fields:
        assert f"--{field.replace('_', '-')}" in text
    assert "--base-model" in text
    assert "--model-name-or-path" in text


def test_a_path_may_be_a_file_address_and_no_other() -> None:
    """`Path("s3://bucket/corpus")` would become a folder named `s3:`."""
    assert PATH.convert("file:///shared/corpus", None, None) == Path("/shared/corpus")
    assert PATH.convert("runs/corpus", None, None) == Path("runs/corpus")
    with pytest.raises(click.BadParameter, match="s3://bucket/corpus is an address"):
        PATH.convert("s3://bucket/corpus", None, None)


def test_a_corpus_may_be_at_an_address_without_secrets() -> None:
    assert CORPUS.convert("s3://bucket/corpus/", None, None) == "s3://bucket/corpus"
    assert CORPUS.convert("file:///shared/corpus", None, None) == Path("/shared/corpus")
    for address in ("s3://KEY:SEC/RET@bucket/corpus", "s3://KEY:SECRET@bucket"):
        for kind in (PATH, CORPUS):
            with pytest.raises(click.BadParameter) as caught:
                kind.convert(address, None, None)
            assert "SEC" not in str(caught.value)


OPTIONS = {
    "prepare": PrepareOptions,
    "show": ShowOptions,
    "train": AdapterRecipe,
    "sweep": SweepOptions,
    "plan": AdapterRecipe,
    "eval": EvalOptions,
    "serve": ServeOptions,
    "chat": ChatOptions,
}
SHOWN_OTHERWISE = {
    "language": "the recipe's, else any",
    "split_ratio": "0.9/0.05/0.05",
    "prepare workers": "all cores",
    "ray_address": "RAY_ADDRESS, else this machine",
    "encoding": "detected for each file",
    "scrub_policy": "the recipe's, else tag",
    "scrub_find": "the recipe's, else identifiers",
    "tagger": "the recipe's, else none",
    "canary_key": "CORPUS-canaries.key, next to the corpus",
    "vs_key_file": "the key in OPENAI_API_KEY",
}


@pytest.mark.parametrize("command", OPTIONS)
def test_every_option_shows_the_default_of_its_model(command: str) -> None:
    fields = fields_of(OPTIONS[command])
    help_texts = {
        option.name: (re.findall(r"  \[(.*)\]$", option.help or "") or [None])[0]
        for option in cli.commands[command].get_params(click.Context(cli.commands[command]))
        if isinstance(option, click.Option) and option.name in fields
    }
    assert help_texts
    for name, text in help_texts.items():
        default = fields[str(name)].default
        shown = SHOWN_OTHERWISE.get(f"{command} {name}", SHOWN_OTHERWISE.get(str(name)))
        if shown is not None:
            assert text == shown
        elif isinstance(default, bool):
            assert text == "on" if default else text in (None, "off")
        else:
            assert text == (None if default in (None, (), {}) else str(default))


def test_options_not_given_are_those_of_the_model(tmp_path: Path) -> None:
    rows = [{"question": f"What is {number}?", "answer": f"It is {number}."} for number in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert slmtune("prepare", "--source", "rows.jsonl", "--out", "typed", cwd=tmp_path).returncode == 0
    prepare(PrepareRequest(tmp_path / "called", sources=(str(tmp_path / "rows.jsonl"),)))
    typed, called = (json.loads((tmp_path / name / "manifest.json").read_text("utf-8")) for name in ("typed", "called"))
    assert typed["config"] == called["config"]
    assert typed["fingerprint"] == called["fingerprint"]


# --- bad input: one paragraph, exit code 2, nothing half-written ----------------------------------------------------


def refuse(cwd: Path, arguments: Sequence[object], *parts: str) -> None:
    before = sorted(cwd.rglob("*"))
    assert_refused(slmtune(*arguments, cwd=cwd), *parts)
    assert sorted(cwd.rglob("*")) == before


def test_unknown_domain_suggests_the_closest(tmp_path: Path) -> None:
    refuse(tmp_path, ("prepare", "--domain", "finanse", "--sample"), "finanse", "Did you mean 'finance'?")


def test_unknown_model_suggests_the_closest(workspace: Path, tmp_path: Path) -> None:
    corpus = workspace / "runs" / "finance" / "corpus"
    refuse(tmp_path, ("train", "--corpus", corpus, "--model", "smolm2-135m"), "Did you mean 'smollm2-135m'?")


@pytest.mark.parametrize(
    ("stage", "command"),
    [("train", "slmtune prepare --domain finance"), ("eval", "slmtune train --domain finance")],
)
def test_missing_stage_names_the_command(tmp_path: Path, stage: str, command: str) -> None:
    refuse(tmp_path, (stage, "--domain", "finance"), "There is no", command)


@pytest.mark.parametrize("stage", ["merge", "serve", "chat"])
def test_missing_adapter_names_the_command(tmp_path: Path, stage: str) -> None:
    refuse(tmp_path, (stage, "--domain", "finance"), "There is no adapter", "slmtune train --domain finance")


def test_unknown_config_key_names_the_closest(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("learning_rat: 0.1\nlora_r: -1\n", "utf-8")
    problems = ("'learning_rat'", "Did you mean 'learning_rate'?", "lora_r", "greater than 0")
    refuse(tmp_path, ("train", "--domain", "finance", "--config", "my.yaml"), *problems)


@pytest.mark.parametrize(
    ("command", "flag", "value"),
    [
        *(("show", "--samples", -1), ("eval", "--limit", 0), ("eval", "--batch-size", 0), ("eval", "--split", "all")),
        *(("serve", "--port", 65536), ("chat", "--max-new-tokens", 0), ("chat", "--temperature", 2.5)),
    ],
)
def test_value_out_of_bounds_is_a_usage_error(tmp_path: Path, command: str, flag: str, value: object) -> None:
    refuse(tmp_path, (command, flag, value), flag)


def test_preparation_lists_all_problems_of_the_command_line_at_once(tmp_path: Path) -> None:
    flags = ("--limit", 0, "--seed", -1, "--chunk-tokens", 3, "--near-duplicates", 0.1, "--workers", 0)
    said = ("--limit 0", "--seed -1", "--chunk-tokens 3", "--near-duplicates 0.1", "--workers 0", "--split-ratio 2")
    refuse(tmp_path, ("prepare", "--source", "x.csv", *flags, "--split-ratio", "2"), *said)


def test_evaluation_with_impossible_sizes_names_the_flags(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--limit 0 cannot be used.*--batch-size -1 cannot be used"):
        evaluate(EvalRequest(tmp_path, tmp_path, tmp_path / "out", limit=0, batch_size=-1))


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *(("--max-steps", 0), ("--lora-r", -4), ("--learning-rate", 0), ("--learning-rate", "nan")),
        *(("--per-device-train-batch-size", 0), ("--num-train-epochs", -1), ("--max-length", 0), ("--lora-r", 10**9)),
    ],
)
def test_impossible_sizes_are_refused(tmp_path: Path, flag: str, value: object) -> None:
    refuse(tmp_path, ("train", "--domain", "finance", flag, value), flag[2:].replace("-", "_"))


BROKEN = "import finetune.models.presets as presets; presets.PRESETS = None"  # an error that slmtune does not foresee


def test_unforeseen_error_says_how_to_see_more(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN, "utf-8")
    done = slmtune("models", cwd=tmp_path, env=searching(tmp_path))
    assert done.returncode == 1
    assert re.fullmatch(
        r"Error: Unexpected AttributeError in commands\.py:\d+\. Run again with --debug for the traceback\n",
        done.stderr,
    )


def test_debug_shows_the_traceback_of_an_unforeseen_error_and_then_one_line(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN, "utf-8")
    done = slmtune("models", "--debug", cwd=tmp_path, env=searching(tmp_path))
    first, *_, cause, last = done.stderr.splitlines()
    assert done.returncode == 1
    assert first == "Traceback (most recent call last):"
    assert cause.startswith("AttributeError: ")
    assert re.fullmatch(r"Error: Unexpected AttributeError in commands\.py:\d+", last)
    assert "RuntimeError" not in done.stderr


def test_debug_shows_the_traceback_of_a_foreseen_error(tmp_path: Path) -> None:
    done = slmtune("merge", "--debug", cwd=tmp_path)
    *_, cause, last = done.stderr.splitlines()
    assert done.returncode == 2
    assert cause.startswith("finetune.errors.MissingStageError: There is no adapter")
    assert last.startswith("Error: There is no adapter")


def searching(folder: Path) -> dict[str, str]:
    """An environment in which Python finds the modules in a folder, such as sitecustomize.py."""
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def test_wrong_type_is_a_usage_error(tmp_path: Path) -> None:
    done = slmtune("train", "--max-steps", "many", cwd=tmp_path)
    assert done.returncode == 2
    assert "--max-steps" in done.stderr


def test_broken_row_is_named_by_file_and_line(tmp_path: Path) -> None:
    secret = "account 12345 of Jane"
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "' + secret + "\n", "utf-8")
    done = slmtune("prepare", "--source", "rows.jsonl", cwd=tmp_path)
    assert_refused(done, "rows.jsonl:2")
    assert secret not in done.stderr
    assert left_in(tmp_path, "rows.jsonl")


def test_unwritable_output_is_named(workspace: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")  # nobody can create a folder below a file
    corpus = workspace / "runs" / "finance" / "corpus"
    arguments = ("train", "--corpus", corpus, "--model", tiny_model, "--out", "file/adapter")
    refuse(tmp_path, arguments, "Cannot write", "--output-dir")


def test_folder_that_slmtune_did_not_make_is_never_replaced(workspace: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow", "utf-8")
    corpus = workspace / "runs" / "finance" / "corpus"
    arguments = ("train", "--corpus", corpus, "--model", tiny_model, "--out", "photos", "--overwrite")
    refuse(tmp_path, arguments, "was not made by slmtune")


def test_model_that_is_not_cached_is_refused_offline(workspace: Path, tmp_path: Path) -> None:
    corpus = workspace / "runs" / "finance" / "corpus"
    arguments = ("train", "--corpus", corpus, "--model", "Qwen/Qwen2.5-1.5B-Instruct", "--offline")
    refuse(tmp_path, arguments, "not in the cache", "--offline")


def test_changed_artifact_is_refused_by_file_name(workspace: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(workspace / "runs" / "finance" / "adapter", tmp_path / "adapter")
    with (tmp_path / "adapter" / "adapter_model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    corpus = workspace / "runs" / "finance" / "corpus"
    arguments = ("eval", "adapter", "--corpus", corpus, "--out", "report")
    refuse(tmp_path, arguments, "adapter_model.safetensors", "damaged")


def test_port_in_use_ends_with_1(workspace: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = slmtune("serve", "--domain", "finance", "--port", port, cwd=workspace)
    assert_refused(done, str(port), "in use", code=1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_training_says_how_to_resume(
    workspace: Path, tiny_model: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    corpus = workspace / "runs" / "finance" / "corpus"
    steps = ("--max-steps", 100000, *ANY_LENGTH)
    running = Command("train", "--corpus", corpus, "--model", tiny_model, *steps, "--out", "adapter", cwd=tmp_path)
    assert running.until_step(0), running.stderr
    running.send(number)
    assert running.wait() == code
    assert "Traceback" not in running.stderr
    message = running.stderr.strip().splitlines()[-1]
    assert f"Stopped by {number.name} after step" in message
    assert message.endswith(f"Resume with: slmtune {' '.join(running.arguments)} --resume")
    assert left_in(tmp_path, "adapter.checkpoints")
