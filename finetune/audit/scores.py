"""Scores of members, controls and canaries: each row is read twice, with the adapter and without it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from finetune.audit.bounds import Separation, epsilon_bound, separate
from finetune.audit.request import Canaries, CanaryGroup
from finetune.audit.rows import PlacedCanary, Row
from finetune.audit.statistics import STATISTICS
from finetune.models.load import LoadedModel
from finetune.scoring.inputs import RowsCallback
from finetune.scoring.supervised import TokenScores, score_tokens

DELTA = 1e-5  # of differential privacy; less than one in the number of rows of nearly all corpora
Scored = tuple[TokenScores, TokenScores]  # of the adapter and of its base


def score_rows(loaded: LoadedModel, rows: Sequence[Row], batch_size: int, on_rows: RowsCallback) -> list[TokenScores]:
    """The scores of the answers' tokens; rows of one source begin alike, which is computed once."""
    scored: dict[int, TokenScores] = {}
    for source in sorted({row.example.source for row in rows}):
        numbers = [number for number, row in enumerate(rows) if row.example.source == source]
        renderings = [rows[number].rendering for number in numbers]
        scores = score_tokens(loaded, renderings, batch_size=batch_size, on_rows=on_rows)
        scored |= zip(numbers, scores, strict=True)
    return [scored[number] for number in range(len(rows))]


def separate_rows(scored: Sequence[Scored], members: int) -> tuple[dict[str, Separation], Separation]:
    """How well each score tells the first `members` rows from the others, and how well the base's own likelihood does."""
    separations = {
        name: _separate([statistic(*each) for each in scored], members) for name, statistic in STATISTICS.items()
    }
    return separations, _separate([float(base.logprobs.mean()) for _, base in scored], members)


def _separate(scores: Sequence[float], members: int) -> Separation:
    return separate(scores[:members], scores[members:])


def measure_canaries(
    drawn: int, placed: Sequence[PlacedCanary], scored: Sequence[Scored], told: Iterable[bool]
) -> Canaries:
    """What became of the canaries; `told` says of each placed one whether the adapter wrote its secret."""
    gains = [_gain(*each) for each in zip(placed, scored, strict=True)]
    everything = list(zip(placed, gains, told, strict=True))
    groups = []
    for repetitions in sorted({each.canary.repetitions for each in placed}):
        group = [each for each in everything if each[0].canary.repetitions == repetitions]
        planted = [each.canary.planted for each, _, _ in group]
        if len(set(planted)) < 2:
            continue  # by chance, all were planted or none: nothing to compare with
        both = [[gain for each, gain, _ in group if each.canary.planted is side] for side in (True, False)]
        written = [sum(hit for each, _, hit in group if each.canary.planted is side) for side in (True, False)]
        area = separate(*both)
        epsilon, p_value = epsilon_bound([gain for _, gain, _ in group], planted, DELTA)
        groups.append(
            CanaryGroup(
                repetitions=repetitions,
                planted=len(both[0]),
                held_out=len(both[1]),
                extracted=written[0],
                held_out_extracted=written[1],
                auc=area.auc,
                auc_ci95=area.auc_ci95,
                epsilon=epsilon,
                p_value=p_value,
            )
        )
    return Canaries(drawn, drawn - len(placed), DELTA, tuple(groups))


def _gain(placed: PlacedCanary, scored: Scored) -> float:
    """How much likelier the adapter finds the secret than its base, in nats."""
    adapter, base = scored
    first = sum(placed.row.rendering.supervised[1 : placed.start])
    span = slice(first, first + placed.end - placed.start)
    return float((adapter.logprobs - base.logprobs)[span].sum(dtype=float))
