"""Adapter → Model: fold LoRA matrices into the unquantised base weights, and prove that the result is the adapter.

Two comparisons on held-out prompts decide. `exact`: the merged model against the adapter over the same unquantised base;
they must agree up to the rounding of the stored weights, else the merge is wrong. `drift`: the merged model against
the adapter over its base as it was trained, quantised or not; the difference is the cost of leaving 4 bits, and it is
bounded.

Only one model is in memory at a time, and only the logits of one prompt: those of the adapter wait in files until the
merged model is compared with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from finetune.artifacts import Adapter, ArtifactWriter, Corpus, Model, ensure_replaceable, writing
from finetune.cards.model_card import model_card
from finetune.corpus.store import read_split
from finetune.errors import CheckFailedError, MissingStageError
from finetune.machine import explain_full_disk, peak_bytes
from finetune.models.chat_template import end_of_turn_ids, render, render_prompt, unrendered_parts
from finetune.models.find import base_of
from finetune.models.load import LoadedModel, greedy_settings, load, load_base
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.records import Example, Message

PROMPTS = 64  # held-out conversations that are compared
GREEDY_PROMPTS, GREEDY_TOKENS = 16, 32  # how many of these are also continued, and by how many tokens
# Limits, in nats per token. Measured with SmolLM2-135M on the finance sample: exact 0.000005 (weights rounded to bfloat16),
# drift 0.055 (NF4 against bfloat16 weights).
MAX_EXACT_KL = 0.01
MAX_DRIFT_KL = 0.35

# Used if there is no corpus.
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
    """The output of a model for one prompt: logits at every token of the answer, and a greedy continuation."""

    logits: torch.Tensor  # (answer tokens, vocabulary), in the compute precision of the model
    greedy: torch.Tensor  # (generated tokens,), empty if the prompt was not continued


class RunningDistance:
    """The distance between two models, summed up prompt by prompt, so that no logits are kept."""

    def __init__(self) -> None:
        self._largest = torch.zeros(())
        self._gaps = self._divergences = 0.0
        self._logits = self._tokens = self._prompts = self._same = self._generated = 0

    def add(self, reference: Trace, other: Trace) -> None:
        """Add a prompt, with KL(reference ‖ other)."""
        left, right = reference.logits.float(), other.logits.float()
        gap = (left - right).abs()
        ours, theirs = left.log_softmax(-1), right.log_softmax(-1)
        divergence = (ours.exp() * (ours - theirs)).sum(-1)
        self._largest = torch.maximum(self._largest, gap.max())  # unlike max(), it passes NaN on
        self._gaps += float(gap.sum(dtype=torch.float64))
        self._divergences += float(divergence.sum(dtype=torch.float64))
        self._logits += gap.numel()
        self._tokens += len(divergence)
        self._prompts += 1
        lengths = len(reference.greedy), len(other.greedy)
        self._same += int((reference.greedy[: min(lengths)] == other.greedy[: min(lengths)]).sum())
        self._generated += max(lengths)

    def distance(self) -> Distance:
        """The figures over the prompts so far."""
        return Distance(
            max_abs_logit_diff=float(self._largest),
            mean_abs_logit_diff=self._gaps / self._logits,
            mean_kl=self._divergences / self._tokens,
            greedy_agreement=self._same / max(self._generated, 1),
            prompts=self._prompts,
        )


def merge_adapter(request: MergeRequest, on_stage: Callable[[str], None] | None = None) -> MergeResult:
    """Merge an adapter onto its unquantised base and verify the stored result.

    Raises:
        CheckFailedError: the merged model is not the adapter; nothing is left behind.
        DiskFullError: there is no room for the model and the logits that are compared; nothing is left behind.
    """
    started = time.monotonic()
    stage = on_stage or (lambda name: None)
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    adapter = Adapter.open(request.adapter, command=request.train_command)
    base = base_of(adapter, request.model)
    recipe = AdapterRecipe.model_validate(adapter.config)
    prompts = _choose_prompts(request.corpus, load_tokenizer(adapter.path, base))
    plain = recipe.model_copy(update={"quantization": "none"})
    with (
        writing(request.output_dir, Model, overwrite=request.overwrite) as writer,
        TemporaryDirectory(dir=writer.folder) as scratch,
        explain_full_disk(writer.folder.parent, "or choose another --output-dir"),
    ):
        live, unmerged = Path(scratch, "live"), Path(scratch, "unmerged")
        stage("tracing the adapter over its base as trained")
        store_traces(load(base, recipe, adapter.path), prompts, live)
        stage("merging onto the unquantised weights")
        loaded = load(base, plain, adapter.path)
        store_traces(loaded, prompts, unmerged)
        _save_merged(loaded, base.folder, adapter.path, writer.folder)
        del loaded
        stage("verifying the merged model")
        tokenizer = load_tokenizer(writer.folder, base)
        merged = LoadedModel(load_base(writer.folder, plain).eval(), tokenizer, base)
        exact, drift = measure_distances(merged, prompts, (unmerged, live))
        _require_equal(exact, drift)
        _describe(writer, adapter, exact, drift)
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


@torch.inference_mode()
def trace_prompts(loaded: LoadedModel, prompts: Sequence[Example]) -> Iterator[Trace]:
    """Trace a model on one prompt after the other; the first few are continued."""
    settings = greedy_settings(loaded.tokenizer, GREEDY_TOKENS)
    for number, example in enumerate(prompts):
        row = render(loaded.tokenizer, example)
        ids = torch.tensor([row.ids], device=loaded.model.device)
        at_answer = torch.tensor(row.supervised[1:], device=ids.device)
        logits = loaded.model(input_ids=ids).logits[0, :-1][at_answer].cpu()
        greedy = torch.empty(0, dtype=torch.long)
        if number < GREEDY_PROMPTS:
            prompt = torch.tensor([render_prompt(loaded.tokenizer, example.prompt, example.tools)], device=ids.device)
            output = loaded.model.generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), generation_config=settings
            )
            greedy = output[0, prompt.shape[1] :].cpu()
        yield Trace(logits, greedy)


def store_traces(loaded: LoadedModel, prompts: Sequence[Example], folder: Path) -> None:
    """Trace a model into files, one per prompt: together they can be gigabytes."""
    folder.mkdir()
    for number, trace in enumerate(trace_prompts(loaded, prompts)):
        save_file(vars(trace), _trace_file(folder, number))


def measure_distances(loaded: LoadedModel, prompts: Sequence[Example], references: Sequence[Path]) -> list[Distance]:
    """The distances of a model from those whose traces of the same prompts are in the folders `references`."""
    comparisons = [RunningDistance() for _ in references]
    for number, trace in enumerate(trace_prompts(loaded, prompts)):
        for comparison, folder in zip(comparisons, references, strict=True):
            comparison.add(Trace(**load_file(_trace_file(folder, number))), trace)
    return [comparison.distance() for comparison in comparisons]


def _trace_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.safetensors"


def _save_merged(loaded: LoadedModel, base_folder: Path, adapter_folder: Path, out: Path) -> None:
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


def _choose_prompts(corpus: Path | None, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Held-out conversations of the corpus, spread over its tasks; bundled ones if there is no corpus.

    Rows that use tools are left out if the chat template leaves the tools out.
    """
    if corpus is not None:
        try:
            opened = Corpus.open(corpus)
        except MissingStageError:
            opened = None
        if opened is not None:
            rows = read_split(opened, "test") or read_split(opened, "validation")
            rows = [row for row in rows if row.task != "text" and not unrendered_parts(tokenizer, row)]
            if rows:
                step = max(1, len(rows) // PROMPTS)
                return rows[::step][:PROMPTS]
    return [
        Example(f"bundled-{number}", (Message("user", question), Message("assistant", answer)), "qa")
        for number, (question, answer) in enumerate(BUNDLED_PROMPTS)
    ]


def _describe(writer: ArtifactWriter, adapter: Adapter, exact: Distance, drift: Distance) -> None:
    writer.manifest["config"] = {"onto": "original", "adapter_config": dict(adapter.config)}
    writer.manifest["parents"] = {"adapter": {"fingerprint": adapter.fingerprint}, **adapter.manifest["parents"]}
    writer.manifest["verification"] = {"exact": asdict(exact), "drift": asdict(drift)}
    (writer.folder / "README.md").write_text(model_card(Model(writer.folder, writer.manifest), None), "utf-8")


def _require_equal(exact: Distance, drift: Distance) -> None:
    for name, kl, limit in (("exact", exact.mean_kl, MAX_EXACT_KL), ("drift", drift.mean_kl, MAX_DRIFT_KL)):
        if not kl <= limit:
            against = "the adapter over the same weights" if name == "exact" else "the adapter over its base as trained"
            raise CheckFailedError(
                f"The merged model is not {against}: mean KL {kl:.4f} nats per token is above {limit}. Nothing was written. "
                "Serve the adapter itself (slmtune serve), or train again with --quantization none and merge that"
            )
