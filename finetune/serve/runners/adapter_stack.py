"""Many adapters on one base model: in each forward pass, every sequence has its own.

PEFT's layers take one adapter, or loop over all of them in each layer. Here the matrices of all adapters are stacked by
layer, so that one product computes the updates of many sequences with few tokens each, as they are during decoding.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from finetune.serve.runners.adapter_weights import AdapterWeights, Update
from finetune.serve.runners.parts import Plan, UpdateStack, everywhere, make_plan

TRIED = 8  # random inputs that show whether an adapter changes a layer


class AdaptedLayer:
    """A layer, and what each adapter does to it: an update, perhaps with a gain, or parameters in place of its own."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.updates: UpdateStack | None = None
        self.gains: dict[int, Tensor] = {}
        self.saved: dict[int, Mapping[str, Tensor]] = {}
        self.is_replaced = False  # while it computes with other parameters

    def put(self, place: int, update: Update) -> None:
        """Stack an update."""
        self.updates = self.updates or UpdateStack(update.down, update.up)
        self.updates.put(place, update.down, update.up)
        if update.gain is not None:
            self.gains[place] = update.gain

    def clear(self, place: int) -> None:
        """Remove what an adapter does."""
        if self.updates is not None:
            self.updates.clear(place)
        self.gains.pop(place, None)
        self.saved.pop(place, None)

    @torch.inference_mode()
    def changes(self, place: int, like: Tensor) -> bool:
        """Whether the layer computes something else with an adapter; inputs are random, of the type and device of `like`."""
        module: Any = self.module
        if saved := self.saved.get(place):
            return any(not torch.equal(value, module.get_parameter(name)) for name, value in saved.items())
        if self.updates is None or isinstance(module, nn.Embedding):
            return self.updates is not None and self.updates.is_set(place)
        random = torch.Generator().manual_seed(0)
        x = torch.randn(TRIED, self.updates.width, generator=random).to(like)
        plain = module.forward(x)
        adapted = plain.clone()
        self.adapt(x, adapted, everywhere(place))
        return not torch.equal(adapted, plain)

    def adapt(self, x: Tensor, result: Tensor, plan: Plan) -> None:
        """Change the result of the layer: (…, tokens, out features)."""
        x = x.flatten() if isinstance(self.module, nn.Embedding) else x.reshape(-1, x.shape[-1])
        result = result.view(-1, result.shape[-1])
        for part in plan.parts if self.saved or self.gains else ():
            if part.place in self.saved:
                result[part.rows] = self._replace(x[part.rows], self.saved[part.place])
            if part.place in self.gains:
                bias: Any = getattr(self.module, "bias", None)
                own = result[part.rows] if bias is None else result[part.rows] - bias
                own = own * self.gains[part.place].to(own.dtype)
                result[part.rows] = own if bias is None else own + bias
        if self.updates is not None:
            self.updates.add(x, result, plan)

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

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._layers: dict[str, AdaptedLayer] = {}
        self._places: dict[str, int] = {}
        self._plans: dict[int, Plan] = {}  # by the number of tokens
        self._any: Plan | None = None  # for any number

    def add(self, name: str, weights: AdapterWeights) -> None:
        """Add an adapter under a name that is free."""
        place = next(number for number in itertools.count() if number not in self._places.values())
        for path, update in weights.updates.items():
            self._layer(path).put(place, update)
        for path, parameters in weights.saved.items():
            self._layer(path).saved[place] = parameters
        self._places[name] = place

    def remove(self, name: str) -> None:
        """Remove an adapter."""
        place = self._places.pop(name)
        for layer in self._layers.values():
            layer.clear(place)

    def changes(self, name: str) -> bool:
        """Whether a layer of the model computes something else with an adapter."""
        place, like = self._places[name], torch.empty(0, dtype=self._model.dtype, device=self._model.device)
        return any(layer.changes(place, like) for layer in self._layers.values())

    def assign(self, adapters: Sequence[tuple[str | None, int]]) -> None:
        """Say which adapters the next pass has: each with a number of tokens; None is the base model.

        Some modules see only the last token of each.
        """
        distinct = {name for name, _ in adapters}
        if len(distinct) == 1:
            (name,) = distinct
            self._plans = {}
            self._any = None if name is None else everywhere(self._places[name])
            return
        self._any = None
        last = self._make_plan([(name, 1) for name, _ in adapters])
        whole = self._make_plan(adapters)
        self._plans = {len(adapters): last, sum(count for _, count in adapters): whole}

    def _make_plan(self, adapters: Sequence[tuple[str | None, int]]) -> Plan:
        return make_plan(adapters, self._places, next(self._model.parameters()).device)

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
