"""The choice of tokens: seeds, temperature, top_p, constraints, log-probabilities, and how an answer reports them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune.models.load import LoadedModel
from finetune.serve.engine.answer import Answer
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import Event, GenerationJob, GenerationParams, Piece, Result
from finetune.serve.engine.sampling import Choice, Sampler

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def shares(**params: Any) -> dict[int, float]:
    """How often each token is chosen."""
    sampler = Sampler(GenerationParams(**{"seed": 0} | params))
    counts = Counter(sampler.choose(LOGITS.clone()).token for _ in range(4000))
    return {token: count / 4000 for token, count in counts.items()}


def test_tokens_are_drawn_with_their_probabilities() -> None:
    assert shares() == pytest.approx({0: 0.5, 1: 0.3, 2: 0.15, 3: 0.05}, abs=0.03)


def test_a_temperature_sharpens_the_probabilities() -> None:
    weights = [share**2 for share in (0.5, 0.3, 0.15, 0.05)]
    expected = {token: weight / sum(weights) for token, weight in enumerate(weights)}
    assert shares(temperature=0.5) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(("top_p", "tokens"), [(0.0, 1), (0.4, 1), (0.6, 2), (0.94, 3), (0.96, 4)])
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p: float, tokens: int) -> None:
    assert set(shares(top_p=top_p)) == set(range(tokens))


def test_top_p_of_a_flat_distribution_reaches_beyond_the_tokens_that_are_sorted_first() -> None:
    sampler = Sampler(GenerationParams(top_p=0.99, seed=0))
    assert len({sampler.choose(torch.zeros(5000)).token for _ in range(3000)}) > 1500


def test_a_constraint_masks_the_tokens_and_hears_of_each() -> None:
    class Only:
        complete = False

        def __init__(self) -> None:
            self.accepted: list[int] = []

        def allowed(self) -> Tensor:
            return torch.tensor([False, False, True, True])

        def accept(self, token: int) -> None:
            self.accepted.append(token)

    only = Only()
    choice = Sampler(GenerationParams(temperature=0, constraint=only, logprobs=1)).choose(LOGITS.clone())
    assert (choice.token, only.accepted) == (2, [2])
    assert choice.logprob == pytest.approx(math.log(0.15))  # the model's own, not that of what is left
    ((likeliest, logprob),) = choice.top
    assert likeliest == 0
    assert logprob == pytest.approx(math.log(0.5))


@pytest.mark.parametrize("top_p", [1e-9, 5e-324])
def test_the_likeliest_token_is_left_however_small_top_p_is(top_p: float) -> None:
    assert Sampler(GenerationParams(top_p=top_p)).choose(LOGITS.clone()).token == 0


def test_a_repetition_penalty_counts_prompt_and_answer() -> None:
    sampler = Sampler(GenerationParams(temperature=0), [0], repetition_penalty=10.0)
    assert [sampler.choose(LOGITS.clone()).token for _ in range(3)] == [1, 2, 3]


def test_a_seed_gives_the_same_answer_whatever_else_is_in_the_batch(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(slots=8, queue_size=8)
    seeded = GenerationParams(max_tokens=16, seed=7)

    def start(params: GenerationParams) -> Any:
        return engine.generate("profit rose", params, "tiny")

    alone = "".join(start(seeded))
    others = [start(GenerationParams(max_tokens=20)) for _ in range(3)]
    assert "".join(start(seeded)) == alone
    assert len({"".join(other) for other in others} | {alone}) == 4


def push(tokens: Sequence[str], stop: tuple[str, ...] = (), limit: int = 99) -> tuple[list[Piece], Result]:
    """The pieces of an answer whose tokens are these texts, with log-probabilities."""
    events: list[Event] = []
    params = GenerationParams(stop=stop, logprobs=1)
    job = GenerationJob((1,), params, limit, None, events.append, lambda job: None)
    answer = Answer(job, frozenset({-1}), lambda ids: "".join(tokens[number] for number in ids))
    for number in range(len(tokens)):
        reason = answer.push(Choice(number, -0.5, ((number, -0.5),)))
        if reason is not None:
            return [event for event in events if isinstance(event, Piece)], answer.finish(reason)
    result = answer.finish("length")
    return [event for event in events if isinstance(event, Piece)], result


def test_each_piece_carries_its_tokens() -> None:
    pieces, result = push(["pro", "fit", " rose"])
    assert [(piece.text, [score.text for score in piece.tokens]) for piece in pieces] == [
        ("pro", ["pro"]),
        ("fit", ["fit"]),
        (" rose", [" rose"]),
    ]
    assert pieces[0].tokens[0].top == ((0, "pro", -0.5),)
    assert result == Result("length", 1, 3)


def test_tokens_of_a_stop_string_are_not_reported() -> None:
    pieces, result = push(["profit", " ro", "se", " EN", "D", "never"], stop=(" END",))
    assert "".join(piece.text for piece in pieces) == "profit rose"
    assert [score.text for piece in pieces for score in piece.tokens] == ["profit", " ro", "se"]
    assert result == Result("stop", 1, 5)


def test_text_held_back_for_a_stop_string_is_reported_with_its_tokens_at_the_end() -> None:
    pieces, _ = push(["profit", " EN"], stop=(" END",))
    assert [(piece.text, len(piece.tokens)) for piece in pieces] == [("profit", 1), (" EN", 1)]


def test_log_probabilities_are_those_of_the_model(make_engine: Callable[..., Engine], loaded: LoadedModel) -> None:
    engine = make_engine()
    prompt = engine.encode_text("profit rose")
    events: list[Event] = []
    job = engine.submit(prompt, GenerationParams(max_tokens=1, temperature=0, logprobs=3), "tiny", events.append)
    while not events or not isinstance(events[-1], Result):
        job.cancelled.wait(0.01)
    (score,) = [score for event in events if isinstance(event, Piece) for score in event.tokens]
    expected = loaded.model(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(-1).topk(3)
    assert [token for token, _, _ in score.top] == expected.indices.tolist()
    assert [value for _, _, value in score.top] == pytest.approx(expected.values.tolist(), abs=1e-4)
    assert (score.id, score.logprob) == (score.top[0][0], score.top[0][2])
