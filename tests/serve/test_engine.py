"""The engine: what it generates, when it stops, the order of requests, and failures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from finetune.artifacts import Adapter
from finetune.errors import ContextLengthError, EngineStoppedError, QueueFullError, SlmtuneError
from finetune.models.chat_template import render_prompt
from finetune.models.load import LoadedModel, load_adapter
from finetune.records import Message
from finetune.serve import ServeTarget
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import Event, Generation, GenerationParams, Result
from finetune.serve.targets import open_engine

from .conftest import Brake

QUESTION = [Message("user", "Did profit rise?")]
GREEDY = GenerationParams(max_tokens=24, temperature=0)


def say(engine: Engine, params: GenerationParams, model: str = "tiny") -> tuple[str, Result]:
    generation = engine.generate(QUESTION, params, model)
    text = "".join(generation)
    assert generation.result is not None
    return text, generation.result


def greedy_ids(loaded: LoadedModel, tokens: int) -> list[int]:
    """The ids that the library generates."""
    import torch

    prompt = torch.tensor([render_prompt(loaded.tokenizer, QUESTION)])
    model: Any = loaded.model
    out = model.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=tokens
    )
    ids: list[int] = out[0, prompt.shape[1] :].tolist()
    return ids


def test_greedy_text_is_what_the_model_generates(engine: Engine, loaded: LoadedModel) -> None:
    ids = greedy_ids(loaded, 24)
    text, result = say(engine, GREEDY)
    assert text == loaded.tokenizer.decode(ids, skip_special_tokens=True)
    assert result == Result("length", len(render_prompt(loaded.tokenizer, QUESTION)), 24)


def test_each_adapter_and_the_base_answer_for_themselves(two_adapters: dict[str, Path], tiny_model: Path) -> None:
    expected = {}
    for name, path in two_adapters.items():
        alone = load_adapter(Adapter.open(path))
        expected[name] = alone.tokenizer.decode(greedy_ids(alone, 24), skip_special_tokens=True)
        with alone.model.disable_adapter():
            expected[tiny_model.name] = alone.tokenizer.decode(greedy_ids(alone, 24), skip_special_tokens=True)
    engine = open_engine([ServeTarget(name, path) for name, path in two_adapters.items()])
    assert isinstance(engine, Engine)
    try:
        order = [*expected, *reversed(expected)]
        assert [say(engine, GREEDY, name)[0] for name in order] == [expected[name] for name in order]
    finally:
        engine.close()
    assert len(set(expected.values())) == 3


def test_a_trained_adapter_is_served_as_it_was_trained(tiny_adapter: Path) -> None:
    alone = load_adapter(Adapter.open(tiny_adapter))
    engine = open_engine([ServeTarget("trained", tiny_adapter)])
    assert isinstance(engine, Engine)
    try:
        text, _ = say(engine, GREEDY, "trained")
    finally:
        engine.close()
    ids = greedy_ids(alone, 24)
    answer = ids[: ids.index(2)] if 2 in ids else ids
    assert text == alone.tokenizer.decode(answer, skip_special_tokens=True)


def test_a_seed_fixes_the_sample(engine: Engine) -> None:
    first, again, other = (say(engine, GenerationParams(max_tokens=16, seed=seed))[0] for seed in (1, 1, 2))
    assert first == again != other


def test_without_a_seed_samples_differ(engine: Engine) -> None:
    assert len({say(engine, GenerationParams(max_tokens=16))[0] for _ in range(3)}) == 3


def test_sampling_leaves_the_callers_random_numbers_alone(engine: Engine) -> None:
    import torch

    state = torch.get_rng_state()
    say(engine, GenerationParams(max_tokens=2, seed=1))
    assert torch.equal(torch.get_rng_state(), state)


def test_sampling_reaches_beyond_the_fifty_likeliest_tokens(engine: Engine, loaded: LoadedModel) -> None:
    """The library's default `top_k`, which requests cannot see."""
    import torch

    prompt = torch.tensor([render_prompt(loaded.tokenizer, QUESTION)])
    likeliest = set(loaded.model(input_ids=prompt).logits[0, -1].topk(50).indices.tolist())
    texts = [say(engine, GenerationParams(max_tokens=1, temperature=2, seed=seed))[0] for seed in range(20)]
    known = {loaded.tokenizer.decode([token], skip_special_tokens=True) for token in likeliest}
    assert set(texts) - known


@pytest.mark.parametrize("temperature", [1e-9, 1e-300])
def test_a_temperature_next_to_zero_is_greedy(engine: Engine, temperature: float) -> None:
    assert say(engine, GenerationParams(max_tokens=8, temperature=temperature)) == say(
        engine, GenerationParams(max_tokens=8, temperature=0)
    )


def test_a_stop_token_of_the_generation_settings_ends_the_answer(
    make_engine: Callable[..., Engine], loaded: LoadedModel
) -> None:
    ids = greedy_ids(loaded, 24)
    end = ids[5]
    settings: Any = loaded.model.generation_config
    settings.eos_token_id = [2, end]
    text, result = say(make_engine(), GREEDY)
    answer = ids[: ids.index(end)]
    assert text == loaded.tokenizer.decode(answer, skip_special_tokens=True)
    assert (result.finish_reason, result.completion_tokens) == ("stop", len(answer))


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(engine: Engine) -> None:
    whole, _ = say(engine, GREEDY)
    stop = whole[4:7]
    text, result = say(engine, GenerationParams(max_tokens=24, temperature=0, stop=("never", stop)))
    assert text == whole[: whole.index(stop)]
    assert result.finish_reason == "stop"
    assert result.completion_tokens < 24


def test_without_a_limit_an_answer_gets_the_rest_of_the_context(engine: Engine) -> None:
    long = [Message("user", "profit rose " * 150)]
    room = engine.context - len(engine.encode_chat(long))
    assert 0 < room < 256
    generation = engine.generate(long, GenerationParams(temperature=0), "tiny")
    assert list(generation)
    assert generation.result is not None
    assert generation.result.completion_tokens <= room


def test_the_context_is_that_of_training(
    loaded: LoadedModel, make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions scaled by YaRN reach further than config.json's max_position_embeddings says."""
    config = loaded.model.config
    scaled = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": config.max_position_embeddings}
    monkeypatch.setattr(config, "rope_parameters", config.rope_parameters | scaled)
    assert make_engine().context == 4 * config.max_position_embeddings


def test_more_than_the_context_is_refused_with_the_counts(engine: Engine) -> None:
    prompt = len(engine.encode_chat(QUESTION))
    with pytest.raises(ContextLengthError, match=rf"{prompt} tokens.* {engine.context} .*{engine.context}"):
        engine.generate(QUESTION, GenerationParams(max_tokens=engine.context), "tiny")
    engine.generate(QUESTION, GenerationParams(max_tokens=engine.context - prompt), "tiny").cancel()


def test_leaving_the_loop_ends_the_generation(make_engine: Callable[..., Engine], loaded: LoadedModel) -> None:
    brake = Brake(loaded)
    brake.released.set()
    engine = make_engine()
    for _ in engine.generate(QUESTION, GenerationParams(max_tokens=400, temperature=0), "tiny"):
        break
    say(engine, GenerationParams(max_tokens=1))
    assert brake.steps < 200


def test_a_full_queue_refuses_and_a_cancelled_request_makes_room(
    make_engine: Callable[..., Engine], loaded: LoadedModel
) -> None:
    brake = Brake(loaded)
    engine = make_engine(queue_size=1)
    events: list[Event] = []
    running = engine.submit([1], GREEDY, "tiny", events.append)
    assert brake.reached.wait(30)
    waiting = engine.submit([1], GREEDY, "tiny", events.append)
    with pytest.raises(QueueFullError):
        engine.submit([1], GREEDY, "tiny", events.append)
    waiting.cancel()
    assert events == [Result("cancelled", 1, 0)]
    last = engine.generate(QUESTION, GREEDY, "tiny")
    running.cancel()
    brake.released.set()
    assert list(last)
    assert events[1:] == [Result("cancelled", 1, 0)]


def test_requests_are_served_in_their_order(make_engine: Callable[..., Engine], loaded: LoadedModel) -> None:
    brake = Brake(loaded)
    engine = make_engine()
    done: list[int] = []
    ended = threading.Semaphore(0)

    def listener(number: int) -> Callable[[Event], None]:
        def listen(event: Event) -> None:
            if isinstance(event, Result):
                done.append(number)
                ended.release()

        return listen

    for number in range(4):
        engine.submit([1], GenerationParams(max_tokens=2), "tiny", listener(number))
    brake.released.set()
    assert all(ended.acquire(timeout=30) for _ in range(4))
    assert done == [0, 1, 2, 3]


def test_a_failed_generation_says_so_without_the_text_and_the_next_one_works(
    make_engine: Callable[..., Engine], loaded: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(QUESTION[0].content)

    caplog.set_level(logging.DEBUG)
    engine = make_engine()
    hook = loaded.model.register_forward_pre_hook(fail)
    with pytest.raises(SlmtuneError, match="RuntimeError") as caught:
        say(engine, GREEDY)
    hook.remove()
    assert QUESTION[0].content not in str(caught.value) + caplog.text
    assert "RuntimeError" in caplog.text
    assert say(engine, GREEDY)[0]
    assert engine.alive


@pytest.mark.parametrize("is_joint", [True, False])
def test_a_request_that_makes_a_pass_fail_does_not_end_the_others(
    make_engine: Callable[..., Engine], loaded: LoadedModel, is_joint: bool
) -> None:
    """The last layer fails, when earlier ones have stored what they computed."""
    engine, poison = make_engine(slots=3), 77
    runner: Any = engine._scheduler._runner
    runner._is_joint = is_joint
    prompts = [engine.encode_text(text) for text in ("Profit rose", "Shares fell as costs grew")]
    seen: list[Any] = []
    model: Any = loaded.model
    model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    def fail(*_: object) -> None:
        if poison in seen[-1]:
            raise RuntimeError

    def ask(*asked: list[int]) -> list[tuple[str, object]]:
        answers = [(SimpleQueue[Event](), ids) for ids in asked]
        held = threading.Event()
        freeing = threading.Thread(target=engine._scheduler.call, args=(lambda: held.wait(30),))
        freeing.start()  # so that all are in the first step
        jobs = [Generation(engine.submit(ids, GREEDY, "tiny", events.put), events) for events, ids in answers]
        held.set()
        freeing.join(30)
        return [collect(job) for job in jobs]

    def collect(generation: Generation) -> tuple[str, object]:
        try:
            return "".join(generation), generation.result
        except SlmtuneError as error:
            return str(error), None

    alone = [ask(prompt)[0] for prompt in prompts]
    model.model.layers[-1].mlp.register_forward_pre_hook(fail)
    assert poison not in {*prompts[0], *prompts[1]}
    first, failed, second = ask(prompts[0], [5, poison, 6], prompts[1])
    assert failed == ("The request failed (RuntimeError)", None)
    assert [first, second] == alone


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_the_worker_dies_nobody_waits_for_ever(make_engine: Callable[..., Engine], loaded: LoadedModel) -> None:
    def die(*_: object) -> None:
        raise SystemExit

    engine = make_engine()
    loaded.model.register_forward_pre_hook(die)
    generations = []
    for _ in range(3):
        try:
            generations.append(engine.generate(QUESTION, GREEDY, "tiny"))
        except EngineStoppedError:  # it died before this request
            break
    for generation in generations:
        with pytest.raises(EngineStoppedError):
            list(generation)
    engine.join()
    assert not engine.alive
    with pytest.raises(EngineStoppedError):
        engine.generate(QUESTION, GREEDY, "tiny")


def test_closing_ends_running_and_waiting_requests_at_once(
    make_engine: Callable[..., Engine], loaded: LoadedModel
) -> None:
    brake = Brake(loaded)
    engine = make_engine()
    generations = [engine.generate(QUESTION, GREEDY, "tiny") for _ in range(2)]
    assert brake.reached.wait(30)
    engine.close()
    for generation in generations:
        with pytest.raises(EngineStoppedError):
            list(generation)
    brake.released.set()


def test_the_repetition_penalty_of_a_model_applies(make_engine: Callable[..., Engine], loaded: LoadedModel) -> None:
    import torch

    assert loaded.model.generation_config is not None
    loaded.model.generation_config.repetition_penalty = 5.0
    engine = make_engine()
    ids = engine.encode_text("The bank raised its outlook")
    model: Any = loaded.model
    new = model.generate(input_ids=torch.tensor([ids]), do_sample=False, max_new_tokens=16)[0, len(ids) :].tolist()
    text = "".join(
        engine.generate("The bank raised its outlook", GenerationParams(max_tokens=16, temperature=0), "tiny")
    )
    assert text == loaded.tokenizer.decode(new, skip_special_tokens=True)
