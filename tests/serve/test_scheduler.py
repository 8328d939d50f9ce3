"""Continuous batching: who is in the batch, when a request joins and leaves it, and how a step is divided."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune.errors import DeadlineError, QueueFullError, SlmtuneError
from finetune.serve.engine.answer import Answer
from finetune.serve.engine.job import Event, GenerationJob, GenerationParams, Piece, Result
from finetune.serve.engine.sampling import Sampler
from finetune.serve.engine.scheduler import Scheduler
from finetune.serve.runners.runner import Extension, Opened

VOCABULARY = 64
END = 63
TIMEOUT = 30


class CountingRunner:
    """Continues each sequence with its last token plus one. Each pass waits until it is let through."""

    def __init__(self, slots: int = 4, chunk: int = 8) -> None:
        self.context, self.slots, self.chunk, self.room = 1000, slots, chunk, 1000 * slots
        self.passes: list[dict[int, tuple[int, ...]]] = []
        self.open_slots: dict[int, str | None] = {}
        self.failure: BaseException | None = None
        self.poison: int | None = None  # a token with which a pass fails
        self._let = threading.Semaphore(0)
        self._reached: SimpleQueue[None] = SimpleQueue()

    def open(self, prompt: Sequence[int], adapter: str | None) -> Opened:
        slot = next(slot for slot in range(self.slots) if slot not in self.open_slots)
        self.open_slots[slot] = adapter
        return Opened(slot, 0)

    def advance(self, extensions: Sequence[Extension]) -> Tensor:
        self.passes.append({extension.slot: extension.tokens for extension in extensions})
        self._reached.put(None)
        assert self._let.acquire(timeout=TIMEOUT)
        if self.failure is not None:
            raise self.failure
        if any(self.poison in extension.tokens for extension in extensions):
            raise RuntimeError
        logits = torch.zeros(len(extensions), VOCABULARY)
        for row, extension in zip(logits, extensions, strict=True):
            row[(extension.tokens[-1] + 1) % VOCABULARY] = 9
        return logits

    def close(self, slot: int) -> None:
        del self.open_slots[slot]

    def load_adapter(self, name: str, folder: Path) -> None:
        raise AssertionError

    def unload_adapter(self, name: str) -> None:
        raise AssertionError

    def wait(self) -> None:
        """Wait until a pass has begun."""
        self._reached.get(timeout=TIMEOUT)

    def let(self, passes: int = 1) -> None:
        """Let passes through."""
        self._let.release(passes)

    def step(self) -> None:
        """Let the pass through that has begun, and wait for the next one."""
        self.let()
        self.wait()


class Client:
    """Submits prompts and collects what comes back."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def ask(self, prompt: Sequence[int], *, adapter: str | None = None, **params: Any) -> Request:
        request = Request()
        settings = GenerationParams(**{"temperature": 0, "max_tokens": 3} | params)
        assert settings.max_tokens is not None
        request.job = GenerationJob(
            tuple(prompt), settings, settings.max_tokens, adapter, request.listen, self._scheduler.drop
        )
        self._scheduler.submit(request.job)
        return request


class Request:
    """The events of a job."""

    job: GenerationJob

    def __init__(self) -> None:
        self.text = ""
        self.outcome: Result | SlmtuneError | None = None
        self._ended = threading.Event()

    def listen(self, event: Event) -> None:
        if isinstance(event, Piece):
            self.text += event.text
        else:
            self.outcome = event
            self._ended.set()

    def wait(self) -> Result | SlmtuneError:
        assert self._ended.wait(TIMEOUT)
        assert self.outcome is not None
        return self.outcome


def decode(ids: Sequence[int]) -> str:
    return "".join(f"{token} " for token in ids)


@contextmanager
def scheduling(runner: CountingRunner, queue_size: int = 8) -> Iterator[tuple[Scheduler, Client]]:
    def begin(job: GenerationJob) -> tuple[Sampler, Answer]:
        return Sampler(job.params), Answer(job, frozenset({END}), decode)

    scheduler = Scheduler(runner, begin, queue_size)
    try:
        yield scheduler, Client(scheduler)
    finally:
        scheduler.close()
        runner.let(1000)
        scheduler.join()


def test_requests_join_and_leave_the_batch_at_every_step() -> None:
    runner = CountingRunner()
    with scheduling(runner) as (_, client):
        first = client.ask([10], max_tokens=2)
        runner.wait()
        second = client.ask([20], max_tokens=3)
        runner.step()
        runner.step()
        assert first.wait() == Result("length", 1, 2)
        runner.step()
        runner.let()
        assert second.wait() == Result("length", 1, 3)
    assert (first.text, second.text) == ("11 12 ", "21 22 23 ")
    assert runner.passes == [{0: (10,)}, {0: (11,), 1: (20,)}, {1: (21,)}, {1: (22,)}]
    assert not runner.open_slots


def test_a_stop_token_ends_an_answer() -> None:
    runner = CountingRunner()
    with scheduling(runner) as (_, client):
        request = client.ask([END - 2], max_tokens=9)
        runner.let(2)
        assert request.wait() == Result("stop", 1, 1)


def test_a_long_prompt_does_not_stall_a_short_one() -> None:
    runner = CountingRunner(chunk=8)
    with scheduling(runner) as (_, client):
        long = client.ask([1] * 40, max_tokens=1)
        runner.wait()
        short = client.ask([2, 3, 4], max_tokens=1)
        runner.step()
        runner.step()
        assert short.wait() == Result("length", 3, 1)
        assert long.outcome is None
        runner.let(9)
        assert long.wait() == Result("length", 40, 1)
    assert [{slot: len(tokens) for slot, tokens in one.items()} for one in runner.passes] == [
        {0: 8},
        {0: 5, 1: 3},
        {0: 8},
        {0: 8},
        {0: 8},
        {0: 3},
    ]


def test_a_prompt_is_finished_before_the_next_one_is_begun() -> None:
    runner = CountingRunner(chunk=8)
    with scheduling(runner) as (_, client):
        first = client.ask([1], max_tokens=1)
        runner.wait()
        others = [client.ask([number] * 6, max_tokens=1) for number in (2, 3, 4)]
        runner.let(20)
        for request in (first, *others):
            request.wait()
    sizes = [{tokens[0]: len(tokens) for tokens in one.values()} for one in runner.passes]
    assert sizes == [{1: 1}, {2: 6, 3: 2}, {3: 4, 4: 4}, {4: 2}]


def test_a_long_prompt_goes_on_while_short_ones_keep_coming() -> None:
    runner = CountingRunner(chunk=8)
    with scheduling(runner) as (_, client):
        long = client.ask([1] * 30, max_tokens=1)
        runner.wait()
        for _ in range(11):
            client.ask([2] * 8, max_tokens=1)
            runner.step()
        runner.let(50)
        assert long.wait() == Result("length", 30, 1)
    with_long = [any(tokens[0] == 1 for tokens in one.values()) for one in runner.passes]
    assert sum(with_long) <= 12
    assert all(with_long[: sum(with_long)])


def test_a_cancelled_request_leaves_the_batch_and_the_others_go_on() -> None:
    runner = CountingRunner()
    with scheduling(runner) as (_, client):
        kept = client.ask([10])
        runner.wait()
        gone = client.ask([20], max_tokens=9)
        runner.step()
        gone.job.cancel()
        runner.let(2)
        assert gone.wait() == Result("cancelled", 1, 0)
        assert kept.wait() == Result("length", 1, 3)
    assert kept.text == "11 12 13 "


@pytest.mark.parametrize("slots", [1, 4], ids=["waiting", "running"])
def test_a_request_ends_at_its_deadline(slots: int) -> None:
    runner = CountingRunner(slots)
    with scheduling(runner) as (_, client):
        client.ask([10], max_tokens=9)
        runner.wait()
        late = client.ask([20], max_tokens=9, deadline=0.0)
        runner.let(2)
        assert isinstance(late.wait(), DeadlineError)


def test_a_full_queue_refuses() -> None:
    runner = CountingRunner(slots=2)
    with scheduling(runner, queue_size=1) as (scheduler, client):
        for _ in range(3):
            client.ask([10])
        with pytest.raises(QueueFullError):
            client.ask([10])
        runner.wait()
        assert scheduler.running + scheduler.waiting == 3


def test_requests_wait_for_memory_in_their_order() -> None:
    runner = CountingRunner()
    runner.room = 12
    with scheduling(runner) as (_, client):
        requests = [client.ask([10] * 7, max_tokens=1)]
        runner.wait()
        requests += [client.ask([20] * size, max_tokens=1) for size in (5, 1, 40)]
        runner.let(20)
        for request in requests:
            assert isinstance(request.wait(), Result)
    assert [len(one) for one in runner.passes] == [1, 2, 1, 1, 1, 1, 1]


def test_clients_take_turns_and_a_clients_requests_keep_their_order() -> None:
    runner = CountingRunner(slots=1)
    with scheduling(runner) as (_, client):
        requests = [client.ask([1], max_tokens=1, client="greedy")]
        runner.wait()
        requests += [client.ask([number], max_tokens=1, client="greedy") for number in (2, 3, 4)]
        requests += [client.ask([number], max_tokens=1, client="modest") for number in (11, 12)]
        runner.let(6)
        for request in requests:
            request.wait()
    order = [str(tokens[0]) for one in runner.passes for tokens in one.values()]
    assert order == ["1", "11", "2", "12", "3", "4"]


def test_a_failed_pass_ends_its_requests_and_the_next_ones_work() -> None:
    runner = CountingRunner()
    with scheduling(runner) as (scheduler, client):
        runner.failure = RuntimeError("secret")
        failed = client.ask([10])
        runner.wait()
        runner.let()
        assert str(failed.wait()) == "The request failed (RuntimeError)"
        runner.failure = None
        runner.let(3)
        assert client.ask([10]).wait() == Result("length", 1, 3)
        assert scheduler.alive
    assert not runner.open_slots


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_failed_pass_ends_only_the_requests_that_make_it_fail(place: int) -> None:
    """The failing pass is divided, once; the others get the same answers as without the request at fault."""
    runner = CountingRunner()
    runner.poison = 50
    prompts = [[10, 11], [20, 21], [30, 31]]
    prompts[place] = [49, 50]
    with scheduling(runner) as (scheduler, client):
        blocker = client.ask([1], max_tokens=1)
        runner.wait()
        requests = [client.ask(prompt) for prompt in prompts]
        runner.let(8)
        assert blocker.wait() == Result("length", 1, 1)
        for number, request in enumerate(requests):
            if number == place:
                assert str(request.wait()) == "The request failed (RuntimeError)"
            else:
                assert request.wait() == Result("length", 2, 3)
                assert request.text == decode([prompts[number][-1] + 1 + step for step in range(3)]).strip() + " "
        assert [len(one) for one in runner.passes] == [1, 3, 1, 1, 1, 2, 2]
        assert scheduler.alive
    assert not runner.open_slots


def test_a_failing_constraint_ends_its_own_request_only() -> None:
    class Broken:
        complete = False

        def allowed(self) -> Tensor | None:
            raise ValueError

        def accept(self, token: int) -> None:
            raise AssertionError

    runner = CountingRunner()
    with scheduling(runner) as (_, client):
        good = client.ask([10])
        runner.wait()
        bad = client.ask([20], constraint=Broken())
        runner.let(4)
        assert str(bad.wait()) == "The request failed (ValueError)"
        assert good.wait() == Result("length", 1, 3)


def test_a_task_waits_for_the_requests_of_its_adapter_but_not_for_others() -> None:
    runner = CountingRunner()
    done: list[str] = []
    with scheduling(runner) as (scheduler, client):
        using = client.ask([10], adapter="a", max_tokens=2)
        runner.wait()
        threads = [
            threading.Thread(target=scheduler.call, args=(lambda name=name: done.append(name), adapter))
            for name, adapter in (("unload a", "a"), ("load b", None))
        ]
        for thread in threads:
            thread.start()
        runner.step()
        threads[1].join(TIMEOUT)
        assert done == ["load b"]
        runner.let()
        using.wait()
        threads[0].join(TIMEOUT)
    assert done == ["load b", "unload a"]


def test_the_error_of_a_task_reaches_its_caller() -> None:
    def fail() -> None:
        raise KeyError

    with scheduling(CountingRunner()) as (scheduler, _):
        with pytest.raises(KeyError):
            scheduler.call(fail)
        assert scheduler.alive
