"""Updates of many adapters in one pass, against a product for each row."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from finetune.serve.runners.parts import UpdateStack, make_plan

PLACES = {f"adapter{place}": place for place in range(6)}
WIDTH, RESULT = 5, 7


def make_matrices(place: int) -> tuple[Tensor, Tensor]:
    """Matrices of a rank that differs from adapter to adapter; the last adapter has none for this layer."""
    generator, rank = torch.Generator().manual_seed(place), 1 + place % 3
    return torch.randn(rank, WIDTH, generator=generator), torch.randn(rank, RESULT, generator=generator)


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(st.tuples(st.sampled_from([None, *PLACES]), st.integers(1, 10)), min_size=1, max_size=9),
    is_rounded=st.booleans(),
)
def test_every_row_gets_the_update_of_its_adapter_once(parts: list[tuple[str | None, int]], is_rounded: bool) -> None:
    stack = UpdateStack(*make_matrices(0))
    for place in range(len(PLACES) - 1):
        stack.put(place, *make_matrices(place))
    names = [name for name, count in parts for _ in range(count)]
    x = torch.randn(len(names), WIDTH, generator=torch.Generator().manual_seed(1))
    result = torch.ones(len(names), RESULT, dtype=torch.bfloat16 if is_rounded else torch.float32)
    expected = torch.ones(len(names), RESULT)
    for row, name in enumerate(names):
        if name is not None and PLACES[name] < len(PLACES) - 1:
            down, up = make_matrices(PLACES[name])
            expected[row] += x[row] @ down.T @ up
    stack.add(x, result, make_plan(parts, PLACES))
    torch.testing.assert_close(result, expected.to(result.dtype), rtol=2e-2 if is_rounded else 1e-4, atol=1e-4)
