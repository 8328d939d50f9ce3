"""Fixtures: a tiny random model with a real tokenizer, and the artifacts made from it; none needs a network."""

from __future__ import annotations

import gc
import json
import os
import signal
from collections.abc import Generator, Iterator
from contextlib import chdir, contextmanager
from itertools import islice
from multiprocessing.forkserver import ensure_running
from pathlib import Path

import pytest
from hypothesis import settings

from finetune.hub.settings import configure_libraries

configure_libraries()  # before any test imports a library that reads it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell started the tests in the background: commands that
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests start would inherit this and ignore SIGINT

from finetune.prepare import PrepareRequest, prepare
from finetune.recipe import DEFAULT_MODEL, AdapterRecipe
from finetune.records import Message

from .command import ROOT
from .hub.local_hub import LocalHub
from .quicker import compare_less, draw_once, write_without_waiting

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = (
    "The bank raised its outlook after profit rose. Shares fell as costs grew. bearish neutral bullish yes no maybe "
)


write_without_waiting()
settings.register_profile("beside others", deadline=None)  # a machine that runs more than this test is not a failure
settings.load_profile("beside others")

ORDINARY = {name: os.environ.get(name) for name in ("HF_HOME", "XDG_CACHE_HOME")}  # before the tests set their own


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each worker begin with its share of the modules of slow tests, so that none is left alone with one at the end.

    xdist divides the items among the workers in their order; a worker that has done its part takes over from the end of
    another's.
    """
    workers: int = getattr(config, "workerinput", {}).get("workercount", 1)
    slow = dict.fromkeys(item.path for item in items if item.get_closest_marker("slow"))
    fast = iter([item for item in items if item.path not in slow])
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        size = (len(items) - len(ordered)) // (workers - worker)
        modules = [*slow][worker::workers]
        share = [item for item in items if item.path in modules]
        ordered += [*share, *islice(fast, max(0, size - len(share)))]
    items[:] = [*ordered, *fast]


def pytest_collection_finish() -> None:
    gc.freeze()
    compare_less()
    draw_once()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """After each module, take what it has imported out of the search for garbage, which takes a second per training."""
    result = yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()  # what is frozen is never freed if it is part of a cycle
        gc.freeze()
        draw_once()
    return result


@pytest.fixture(scope="session", autouse=True)
def isolated_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests out of the caches of the machine, and these out of the tests."""
    home = tmp_path_factory.mktemp("home")
    os.environ.update(
        HF_HOME=str(home / "hf"), XDG_CACHE_HOME=str(home / "cache"), WANDB_MODE="offline", WANDB_DIR=str(home)
    )
    os.environ["COLUMNS"] = "110"  # the width of tables, whatever the terminal of the tests


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with a byte-level BPE tokenizer and a ChatML template, as a transformers folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([WORDS] * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHATML
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.15,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@contextmanager
def cache_of_machine() -> Iterator[None]:
    """With the caches of the machine instead of the tests' own."""
    isolated = {name: os.environ[name] for name in ORDINARY}
    for name, value in ORDINARY.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    try:
        yield
    finally:
        os.environ.update(isolated)


@pytest.fixture(scope="session")
def real_model() -> Path:
    """The default base model, from the cache of the machine or downloaded to it; for `slow` tests."""
    from finetune.models import resolve

    with cache_of_machine():
        return resolve(DEFAULT_MODEL)


@pytest.fixture(scope="session")
def real_encoder() -> Path:
    """MiniLM, from the cache of the machine or downloaded to it; for `slow` tests."""
    from finetune.models import resolve

    with cache_of_machine():
        return resolve("minilm-l6")


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 48 labelled sentences and 12 questions, whose labels follow from a word in the sentence."""
    folder = tmp_path_factory.mktemp("corpora")
    signs = {"bearish": "fell", "neutral": "held", "bullish": "rose"}
    news = [
        {"text": f"Shares of company number {number} {sign} today.", "label": label}
        for number in range(16)
        for label, sign in signs.items()
    ]
    questions = [{"question": f"What is {n} plus one?", "answer": f"It is {n + 1}."} for n in range(12)]
    for name, rows in (("news", news), ("questions", questions)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    sources = tuple(str(folder / f"{name}.jsonl") for name in ("news", "questions"))
    prepare(PrepareRequest(folder / "corpus", sources=sources, split_ratio="0.6/0.1/0.3", license="cc0-1.0"))
    return folder / "corpus"


@pytest.fixture(scope="session")
def tiny_adapter(tiny_model: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny model in 4 bits, really trained on the tiny corpus."""
    from finetune.train import TrainRequest, train

    recipe = AdapterRecipe(model=str(tiny_model), learning_rate=1e-2, num_train_epochs=10, logging_steps=1)
    folder = tmp_path_factory.mktemp("adapters") / "tiny"
    train(TrainRequest(tiny_corpus, folder, recipe))
    return folder


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two cores, on which worker processes are forked from the server of commands."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    with chdir(ROOT):
        ensure_running()


def chat(*turns: str) -> tuple[Message, ...]:
    """A conversation of alternating user and assistant turns."""
    return tuple(Message("user" if number % 2 == 0 else "assistant", turn) for number, turn in enumerate(turns))


@pytest.fixture
def local_hub() -> Iterator[LocalHub]:
    """An empty Hugging Face Hub on this machine; a client is a process with `local_hub.environ(home)`."""
    with LocalHub() as hub:
        yield hub
