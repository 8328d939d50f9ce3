"""Who takes part in an evaluation; contestants that share weights are loaded together, and only one such group at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from finetune.artifacts import Adapter, Corpus
from finetune.evaluate.contestants.contestant import ADAPTER, BASE, FEW_SHOT, Contestant
from finetune.evaluate.contestants.encoder import require_rows
from finetune.evaluate.contestants.gguf import open_gguf
from finetune.evaluate.contestants.local import open_adapter, open_encoder, open_rival, shares_base
from finetune.evaluate.contestants.rivals import GgufRival, LocalRival, Rival, ServerRival
from finetune.evaluate.contestants.server import open_server
from finetune.evaluate.request import EvalRequest
from finetune.models.find import base_of
from finetune.models.heads import Head
from finetune.scoring.tasks import EvalTask


@dataclass(frozen=True)
class Group:
    """Contestants that share weights.

    `members` are their names in order, each with its identity: whatever decides its answers apart from the rows and the
    options of the evaluation, such as the fingerprint of its weights. `open` loads the weights and frees them at the end;
    it can be sent to another process.
    """

    members: Mapping[str, str]
    open: Callable[[], AbstractContextManager[list[Contestant]]]


def line_up(
    request: EvalRequest, adapter: Adapter, corpus: Corpus | None, tasks: Sequence[EvalTask], rivals: Sequence[Rival]
) -> list[Group]:
    """The groups of contestants, the first with base and adapter; nothing is loaded yet.

    A rival that is an adapter of the same base model, quantised in the same way, joins the first group.

    Raises:
        InputError: the adapter cannot answer the rows, or the base model of a rival is not on this machine.
    """
    base = str(adapter.manifest["parents"]["base_model"]["fingerprint"])
    head = Head.of_manifest(adapter.manifest)
    if head is not None:
        require_rows(head, tasks, request.split)
        members = {BASE: base, ADAPTER: adapter.fingerprint}
        first = Group(members, partial(open_encoder, request, adapter, tasks))
        return [first, *(_group_alone(request, rival, tasks) for rival in rivals)]
    joining = [rival for rival in rivals if isinstance(rival, LocalRival) and shares_base(rival, adapter)]
    rows = corpus.fingerprint if corpus else ""
    examples = {FEW_SHOT: f"{base} {request.few_shot} {rows}"} if request.few_shot else {}
    others = {rival.name: rival.identity for rival in joining}
    members = {BASE: base, **examples, **others, ADAPTER: adapter.fingerprint}
    first = Group(members, partial(open_adapter, request, adapter, corpus, joining))
    return [first, *(_group_alone(request, rival, tasks) for rival in rivals if rival not in joining)]


def report_order(rivals: Sequence[Rival]) -> list[str]:
    """The names of all possible contestants in the order of the report."""
    return [BASE, FEW_SHOT, *(rival.name for rival in rivals), ADAPTER]


def _group_alone(request: EvalRequest, rival: Rival, tasks: Sequence[EvalTask]) -> Group:
    members = {rival.name: rival.identity}
    if isinstance(rival, ServerRival):
        return Group(members, partial(open_server, request, rival))
    if isinstance(rival, GgufRival):
        return Group(members, partial(open_gguf, request, rival, tasks))
    if isinstance(rival.model, Adapter):
        base_of(rival.model)  # raises if it cannot be found
    return Group(members, partial(open_rival, request, rival))
