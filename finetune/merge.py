"""Adapter → Model: fold LoRA matrices into the unquantised base weights, and prove that the result is the adapter.

Two comparisons on held-out prompts decide. `exact`: the merged model against the adapter over the same unquantised base;
they must agree up to the rounding of the stored weights, else the merge is wrong. `drift`: the merged model against
the adapter over its base as it was trained, quantised or not; this is what leaving 4 bit changes, and it is bounded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from finetune.artifacts import Adapter, Corpus, Model, ensure_replaceable, writing
from finetune.cards.model_card import model_card
from finetune.corpus.store import read_split
from finetune.errors import CheckFailedError, MissingStageError
from finetune.machine import peak_bytes
from finetune.models.chat_template import end_of_turn_ids, render_messages, render_prompt
from finetune.models.find import base_of
from finetune.models.load import Loaded, greedy_settings, load, load_base
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.records import Example, Message

PROMPTS = 64  # held-out conversations that are compared
GREEDY_PROMPTS, GREEDY_TOKENS = 16, 32  # of those, how many are continued, and how far
# Limits, in nats per token. Measured with SmolLM2-135M on the finance sample: exact 0.000005 (weights rounded to bfloat16),
# drift 0.055 (NF4 against bfloat16 weights).
MAX_EXACT_KL = 0.01
MAX_DRIFT_KL = 0.35

# Used where no corpus is at hand.
BUNDLED_PROMPTS = (
    ("What is inflation?", "Inflation is a general rise in prices, so that money buys less than before."),
    ("Why do banks hold capital?", "Capital absorbs losses before depositors and other creditors are hurt."),
    (
        "How does a vaccine work?",
        "It shows the immune system a harmless part of a germ, so that defences are ready later.",
    ),
    ("What is a dividend?", "A dividend is the part of its profit that a company pays out to its shareholders."),
    ("Name a source of vitamin C.", "Oranges, peppers and broccoli are rich in vitamin C."),
    ("What does liquidity mean?", "Liquidity is how quickly something can be turned into cash without a loss."),
    ("Why wash hands?", "Washing hands with soap removes germs before they reach the mouth, nose or eyes."),
    ("What is a bond?", "A bond is a loan that investors give to a company or a state against interest."),
)


@dataclass(frozen=True)
class MergeRequest:
    """What to merge and where the model goes; a corpus supplies held-out prompts."""

    adapter: Path
    output_dir: Path
    corpus: Path | None = None
    model: str | None = None
    overwrite: bool = False
    train_command: str = Adapter.made_by


@dataclass(frozen=True)
class Distance:
    """How far two models are apart on the same prompts: logits, KL in nats per token, share of equal greedy tokens."""

    max_abs_logit_diff: float
    mean_abs_logit_diff: float
    mean_kl: float
    greedy_agreement: float
    prompts: int


@dataclass(frozen=True)
class MergeResult:
    """The merged model and how it was verified; the top-level figures are those of `drift`."""

    model: Path
    onto: str
    verified: bool
    max_abs_logit_diff: float
    mean_kl: float
    greedy_agreement: float
    exact: Distance
    drift: Distance
    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Trace:
    """What a model says of the prompts: logits at every answer position, and greedy continuations."""

    logits: list[
        torch.Tensor
    ]  # one per prompt: (answer tokens, vocabulary), float16 would lose the comparison's digits
    greedy: list[list[int]]


def merge_adapter(request: MergeRequest, on_stage: Callable[[str], None] | None = None) -> MergeResult:
    """Merge an adapter onto its unquantised base and verify the stored result.

    Raises:
        CheckFailedError: the merged model is not the adapter; nothing is left behind.
    """
    started = time.monotonic()
    stage = on_stage or (lambda name: None)
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    adapter = Adapter.open(request.adapter, command=request.train_command)
    base = base_of(adapter, request.model)
    recipe = AdapterRecipe.model_validate(adapter.config)
    prompts = _held_out(request.corpus)
    stage("tracing the adapter over its base as trained")
    live = trace(load(base, recipe, adapter.path), prompts)
    plain = recipe.model_copy(update={"load_in_4bit": False})
    with writing(request.output_dir, Model, overwrite=request.overwrite) as writer:
        stage("merging onto the unquantised weights")
        loaded = load(base, plain, adapter.path)
        unmerged = trace(loaded, prompts)
        _save_merged(loaded, base.folder, adapter.path, writer.folder)
        del loaded
        stage("verifying the merged model")
        tokenizer = load_tokenizer(writer.folder, base)
        merged = trace(Loaded(load_base(writer.folder, plain).eval(), tokenizer, base), prompts)
        exact, drift = distance(unmerged, merged), distance(live, merged)
        _require_equal(exact, drift)
        writer.manifest["config"] = {"onto": "original", "adapter_config": dict(adapter.config)}
        writer.manifest["parents"] = {"adapter": {"fingerprint": adapter.fingerprint}, **adapter.manifest["parents"]}
        writer.manifest["verification"] = {"exact": asdict(exact), "drift": asdict(drift)}
        (writer.folder / "README.md").write_text(model_card(Model(writer.folder, writer.manifest), None), "utf-8")
    return MergeResult(
        model=request.output_dir,
        onto="original",
        verified=True,
        max_abs_logit_diff=drift.max_abs_logit_diff,
        mean_kl=drift.mean_kl,
        greedy_agreement=drift.greedy_agreement,
        exact=exact,
        drift=drift,
        seconds=time.monotonic() - started,
        peak_memory_bytes=peak_bytes(),
    )


def trace(loaded: Loaded, prompts: Sequence[Example]) -> Trace:
    """Logits at the answers of `prompts`, and greedy continuations of the first few."""
    settings = greedy_settings(loaded.tokenizer, GREEDY_TOKENS)
    logits, greedy = [], []
    with torch.inference_mode():
        for number, example in enumerate(prompts):
            row = render_messages(loaded.tokenizer, example.messages)
            ids = torch.tensor([row.ids], device=loaded.model.device)
            at_answer = torch.tensor(row.supervised[1:], device=ids.device)
            logits.append(loaded.model(input_ids=ids).logits[0, :-1][at_answer].float().cpu())
            if number < GREEDY_PROMPTS:
                prompt = torch.tensor([render_prompt(loaded.tokenizer, example.prompt)], device=ids.device)
                output = loaded.model.generate(
                    input_ids=prompt, attention_mask=torch.ones_like(prompt), generation_config=settings
                )
                greedy.append(output[0, prompt.shape[1] :].tolist())
    return Trace(logits, greedy)


def distance(reference: Trace, other: Trace) -> Distance:
    """Compare two traces of the same prompts; KL is of `other` from `reference`."""
    gaps, divergences = [], []
    for left, right in zip(reference.logits, other.logits, strict=True):
        gaps.append((left - right).abs().flatten())
        ours, theirs = left.log_softmax(-1), right.log_softmax(-1)
        divergences.append((ours.exp() * (ours - theirs)).sum(-1))
    same = total = 0
    for wanted, given in zip(reference.greedy, other.greedy, strict=True):
        total += max(len(wanted), len(given))
        same += sum(1 for left, right in zip(wanted, given, strict=False) if left == right)
    gap, divergence = torch.cat(gaps), torch.cat(divergences)
    return Distance(
        max_abs_logit_diff=float(gap.max()),
        mean_abs_logit_diff=float(gap.mean()),
        mean_kl=float(divergence.mean()),
        greedy_agreement=same / max(total, 1),
        prompts=len(reference.logits),
    )


def _save_merged(loaded: Loaded, base_folder: Path, adapter_folder: Path, out: Path) -> None:
    """Merge in the loaded precision and store in the base's own."""
    merged: Any = loaded.model.merge_and_unload(safe_merge=True)
    stored = AutoConfig.from_pretrained(base_folder, local_files_only=True, trust_remote_code=False).dtype
    merged.to(stored or torch.float32)
    merged.config.dtype = stored
    generation: GenerationConfig = merged.generation_config
    generation.eos_token_id = end_of_turn_ids(loaded.tokenizer)
    generation.pad_token_id = loaded.tokenizer.pad_token_id
    merged.save_pretrained(out, safe_serialization=True, max_shard_size="4GB")
    load_tokenizer(adapter_folder, loaded.base).save_pretrained(out)


def _held_out(corpus: Path | None) -> list[Example]:
    """Held-out conversations of the corpus, spread over its tasks; bundled ones where there is no corpus."""
    if corpus is not None:
        try:
            opened = Corpus.open(corpus)
        except MissingStageError:
            opened = None
        if opened is not None:
            rows = read_split(opened, "test") or read_split(opened, "validation")
            rows = [row for row in rows if row.task != "text"]
            if rows:
                step = max(1, len(rows) // PROMPTS)
                return rows[::step][:PROMPTS]
    return [
        Example(f"bundled-{number}", (Message("user", question), Message("assistant", answer)), "qa")
        for number, (question, answer) in enumerate(BUNDLED_PROMPTS)
    ]


def _require_equal(exact: Distance, drift: Distance) -> None:
    for name, found, limit in (("exact", exact.mean_kl, MAX_EXACT_KL), ("drift", drift.mean_kl, MAX_DRIFT_KL)):
        if not found <= limit:
            against = "the adapter over the same weights" if name == "exact" else "the adapter over its base as trained"
            raise CheckFailedError(
                f"The merged model is not {against}: mean KL {found:.4f} nats per token is above {limit}. Nothing was written. "
                "Serve the adapter itself (slmtune serve), or train again with --no-load-in-4bit and merge that"
            )
