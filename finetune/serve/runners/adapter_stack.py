"""Many adapters on one base model: in each forward pass, every sequence has its own.

PEFT's layers take one adapter, or loop over all of them in each layer. Here the matrices of all adapters are stacked by
layer, so that one product computes the updates of many sequences with few tokens each, as they are during decoding.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from finetune.serve.runners.adapter_weights import AdapterWeights, Update, is_linear
from finetune.serve.runners.parts import Part, divide_rows

STACKED_FROM = 3  # adapters in a pass; for fewer, one product each is faster
STACKED_TOKENS = (
    64  # with more tokens, the wasted part of the common product (each token times all adapters) costs more
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The adapters of the tokens of a pass. With `mask`, (tokens, places · rank), all updates are one product."""

    parts: tuple[Part, ...]
    mask: Tensor | None = None


class AdaptedLayer:
    """A layer, and what each adapter does to it: an update, perhaps with a gain, or parameters in place of its own."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.down: Tensor | None = None  # (places, rank, in features), zero where an adapter has less
        self.up: Tensor | None = None  # (places, rank, out features)
        self.gains: dict[int, Tensor] = {}
        self.saved: dict[int, Mapping[str, Tensor]] = {}
        self.is_replaced = False  # while it computes with other parameters

    def put(self, place: int, update: Update, places: int, rank: int) -> None:
        """Stack an update."""
        self.down, self.up = _enlarge(self.down, update.down, places, rank), _enlarge(self.up, update.up, places, rank)
        self.down[place, : len(update.down)] = update.down
        self.up[place, : len(update.up)] = update.up
        if update.gain is not None:
            self.gains[place] = update.gain

    def resize(self, places: int, rank: int) -> None:
        """Make room for more adapters, or for larger ones."""
        if self.down is not None and self.up is not None:
            self.down = _enlarge(self.down, self.down, places, rank)
            self.up = _enlarge(self.up, self.up, places, rank)

    def clear(self, place: int) -> None:
        """Remove what an adapter does."""
        for stack in (self.down, self.up):
            if stack is not None:
                stack[place] = 0
        self.gains.pop(place, None)
        self.saved.pop(place, None)

    def adapt(self, x: Tensor, result: Tensor, plan: Plan) -> None:
        """Change the result of the layer: (…, tokens, out features)."""
        x = x.flatten() if isinstance(self.module, nn.Embedding) else x.reshape(-1, x.shape[-1])
        result = result.view(-1, result.shape[-1])
        for part in plan.parts:
            if part.place in self.saved:
                result[part.rows] = self._replace(x[part.rows], self.saved[part.place])
            if part.place in self.gains:
                bias: Any = getattr(self.module, "bias", None)
                own = result[part.rows] if bias is None else result[part.rows] - bias
                own = own * self.gains[part.place].to(own.dtype)
                result[part.rows] = own if bias is None else own + bias
        if self.down is None or self.up is None:
            return
        if plan.mask is not None and is_linear(self.module):
            hidden = x.to(self.down.dtype) @ self.down.flatten(0, 1).t()
            _add(result, hidden.mul_(plan.mask), self.up.flatten(0, 1))
            return
        for part in plan.parts:
            _add(result[part.rows], _reduce(self.module, x[part.rows], self.down[part.place]), self.up[part.place])

    def _replace(self, x: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """What the layer computes with other parameters."""
        self.is_replaced = True
        try:
            result: Tensor = functional_call(self.module, dict(parameters), (x,))
        finally:
            self.is_replaced = False
        return result


class AdapterStack:
    """The adapters of a base model, and which tokens of the next pass have which."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._layers: dict[str, AdaptedLayer] = {}
        self._places: dict[str, int] = {}
        self._count, self._rank = 1, 1
        self._plans: dict[int, Plan] = {}  # by the number of tokens
        self._any: Plan | None = None  # for any number

    def add(self, name: str, weights: AdapterWeights) -> None:
        """Add an adapter under a name that is free."""
        place = next(number for number in itertools.count() if number not in self._places.values())
        rank = max((len(update.down) for update in weights.updates.values()), default=1)
        if place >= self._count or rank > self._rank:
            self._count = self._count if place < self._count else 2 * self._count
            self._rank = max(rank, self._rank)
            for layer in self._layers.values():
                layer.resize(self._count, self._rank)
        for path, update in weights.updates.items():
            self._layer(path).put(place, update, self._count, self._rank)
        for path, parameters in weights.saved.items():
            self._layer(path).saved[place] = parameters
        self._places[name] = place

    def remove(self, name: str) -> None:
        """Remove an adapter."""
        place = self._places.pop(name)
        for layer in self._layers.values():
            layer.clear(place)

    def assign(self, adapters: Sequence[tuple[str | None, int]]) -> None:
        """Say which adapters the next pass has: each with a number of tokens; None is the base model.

        Some modules see only the last token of each.
        """
        distinct = {name for name, _ in adapters}
        if len(distinct) == 1:
            (name,) = distinct
            self._plans = {}
            self._any = None if name is None else Plan((Part(self._places[name], slice(None)),))
            return
        self._any = None
        last = self._make_plan([(name, 1) for name, _ in adapters])
        whole = self._make_plan(adapters)
        self._plans = {len(adapters): last, sum(count for _, count in adapters): whole}

    def _make_plan(self, adapters: Sequence[tuple[str | None, int]]) -> Plan:
        parts, count = divide_rows(adapters, self._places)
        if len(parts) < STACKED_FROM or count > STACKED_TOKENS:
            return Plan(tuple(parts))
        mask = torch.zeros(count, self._count, self._rank)
        for part in parts:
            mask[part.rows, part.place] = 1
        device = next(self._model.parameters()).device
        return Plan(tuple(parts), mask.flatten(1).to(device))

    def _layer(self, path: str) -> AdaptedLayer:
        if path not in self._layers:
            module = self._model.get_submodule(path)
            layer = self._layers[path] = AdaptedLayer(module)

            def adapt(_: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
                if layer.is_replaced:
                    return
                if self._any is not None:
                    layer.adapt(inputs[0], result, self._any)
                elif self._plans:
                    layer.adapt(inputs[0], result, self._plans[result.shape[:-1].numel()])

            module.register_forward_hook(adapt)
        return self._layers[path]


def _reduce(module: nn.Module, x: Tensor, down: Tensor) -> Tensor:
    """(tokens, rank)"""
    if isinstance(module, nn.Embedding):
        return down[:, x].t()
    return x.to(down.dtype) @ down.t()


def _add(result: Tensor, hidden: Tensor, up: Tensor) -> None:
    """Add the product of two matrices to a third one, which is rounded only once if it has a lower precision."""
    if result.dtype == up.dtype:
        result.addmm_(hidden, up)
    else:
        result += hidden @ up


def _enlarge(stack: Tensor | None, like: Tensor, places: int, rank: int) -> Tensor:
    """A stack with room for more adapters or larger ranks."""
    if stack is not None and stack.shape[0] >= places and stack.shape[1] >= rank:
        return stack
    larger = like.new_zeros(places, rank, like.shape[-1])
    if stack is not None:
        larger[: stack.shape[0], : stack.shape[1]] = stack
    return larger
