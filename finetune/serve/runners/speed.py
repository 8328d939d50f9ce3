"""How fast a runner is: the time that a few steps of a small batch take."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Sequence

from finetune.serve.runners.runner import Extension, Runner

BATCH = 4  # sequences: between a single client and many
STEPS = 16
SECONDS = 1.0  # after which no further step begins
PROMPT = tuple(range(5, 13))  # token ids: any will do


def seconds_per_token(runner: Runner, adapters: Sequence[str | None]) -> float:
    """Seconds for a token of `BATCH` sequences, which take turns with the adapters: the median over some steps.

    Infinite if the runner has no room for a few tokens.
    """
    count, steps = min(BATCH, runner.slots), min(STEPS, runner.context - len(PROMPT) - 1)
    if steps < 1 or count * (len(PROMPT) + 1 + steps) > runner.room:
        return math.inf
    slots = [runner.open(PROMPT, adapter).slot for adapter in itertools.islice(itertools.cycle(adapters), count)]
    times: list[float] = []
    try:
        for slot in slots:
            runner.advance([Extension(slot, PROMPT)])
        runner.advance([Extension(slot, PROMPT[:1]) for slot in slots])  # what libraries do once does not count
        while len(times) < steps and sum(times) < SECONDS:
            started = time.perf_counter()
            runner.advance([Extension(slot, PROMPT[:1]) for slot in slots])
            times.append(time.perf_counter() - started)
    finally:
        for slot in slots:
            runner.close(slot)
    return statistics.median(times) / count
