"""Models in GGUF files, computed by llama.cpp: token ids in, logits out.

Prompts that begin like the one before are not computed again, and a tree of continuations takes one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from finetune.errors import InputError
from finetune.models.presets import PLAIN_TEMPLATE

MAGIC = b"GGUF"
BATCH = 512  # tokens per pass
SEQUENCES = 256  # of llama.cpp, LLAMA_MAX_SEQ
FLOAT32, WITHOUT_FLASH = 0, 0  # of llama.cpp: GGML_TYPE_F32 and LLAMA_FLASH_ATTN_TYPE_DISABLED
Logits = NDArray[np.float64]


class GgufModel:
    """A model in memory until it is closed; `reserve` must be called before anything is computed."""

    def __init__(self, path: Path) -> None:
        from cyllama.llama import llama_cpp

        llama_cpp.disable_logging()
        self._library = llama_cpp
        self._model = _load(llama_cpp, path)
        self._context: Any = None
        self._batch: Any = None
        self._cached: list[int] = []  # the tokens of sequence 0
        self.context = int(self._model.n_ctx_train)
        self.tokenizer = cast(PreTrainedTokenizerBase, GgufTokenizer(self._model))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in (self._batch, self._context, self._model):
            if part is not None:
                part.close()

    def reserve(self, tokens: int, sequences: int) -> None:
        """Reserve memory for this many tokens in all, and for trees of this many sequences."""
        settings = self._library.LlamaContextParams()
        settings.n_ctx, settings.n_seq_max = tokens + 1, sequences
        settings.n_batch = settings.n_ubatch = BATCH
        settings.n_threads = settings.n_threads_batch = torch.get_num_threads()
        settings.type_k = settings.type_v = FLOAT32
        settings.flash_attn_type = WITHOUT_FLASH
        settings.kv_unified = settings.swa_full = True  # sequences share tokens; any token of the cache can be removed
        self._context = self._library.LlamaContext(self._model, settings)
        self._batch = self._library.LlamaBatch(n_tokens=BATCH, embd=0, n_seq_max=sequences)

    def read(self, prompt: Sequence[int]) -> Logits:
        """The logits of the token after a prompt."""
        pairs = zip(prompt[:-1], self._cached, strict=False)
        common = next(
            (n for n, (one, other) in enumerate(pairs) if one != other), min(len(prompt) - 1, len(self._cached))
        )
        self._cut(common)
        *_, last = self._decode([(token, place, [0]) for place, token in enumerate(prompt)][common:], only_last=True)
        self._cached = list(prompt)
        return last

    def read_more(self, token: int) -> Logits:
        """The logits after one more token."""
        last = self._decode([(token, len(self._cached), [0])])[-1]
        self._cached.append(token)
        return last

    def read_tree(self, nodes: Sequence[tuple[int, int, Collection[int]]], sequences: int) -> list[Logits]:
        """The logits after each node of a tree that continues the prompt read last.

        Args:
            nodes: parents before children; the token of each, its depth from 1, and the sequences that pass through it.
            sequences: how many there are.
        """
        start = len(self._cached) - 1
        for number in range(1, sequences):
            self._context.memory_seq_cp(0, number, -1, -1)
        logits = self._decode([(token, start + depth, sorted(members)) for token, depth, members in nodes])
        self._cut(len(self._cached))
        return logits

    def _cut(self, length: int) -> None:
        """Forget all tokens but the first of sequence 0."""
        self._context.memory_seq_keep(0)
        self._context.memory_seq_rm(0, length, -1)
        del self._cached[length:]

    def _decode(self, tokens: Sequence[tuple[int, int, list[int]]], *, only_last: bool = False) -> list[Logits]:
        """The logits after each token, or after the last one; a token has a position and its sequences."""
        logits = []
        for start in range(0, len(tokens), BATCH):
            part = tokens[start : start + BATCH]
            wanted = [not only_last or start + number == len(tokens) - 1 for number in range(len(part))]
            self._batch.clear()
            for (token, place, members), is_wanted in zip(part, wanted, strict=True):
                self._batch.add(token, place, members, is_wanted)
            self._context.decode(self._batch)
            logits += [np.array(self._context.get_logits_ith(number)) for number in np.flatnonzero(wanted).tolist()]
        return logits


class GgufTokenizer:
    """The tokenizer and the chat template of a GGUF file, with what the renderer uses of a tokenizer of transformers."""

    def __init__(self, model: Any) -> None:
        self._vocabulary, metadata = model.get_vocab(), model.metadata()
        self.chat_template: str = metadata.get("tokenizer.chat_template") or PLAIN_TEMPLATE
        self.eos_token_id, self.bos_token_id = self._vocabulary.token_eos(), self._vocabulary.token_bos()
        self.all_special_ids = [one for one in range(self._vocabulary.n_vocab) if self._vocabulary.is_control(one)]
        self.all_special_tokens = [self._vocabulary.get_text(one) for one in self.all_special_ids]
        self.eos_token = self._vocabulary.get_text(self.eos_token_id)
        self.bos_token = self._vocabulary.get_text(self.bos_token_id) if self.bos_token_id >= 0 else ""

    def __call__(self, texts: str | list[str], *, add_special_tokens: bool) -> dict[str, Any]:
        """The ids of a text, or of each of several."""
        assert not add_special_tokens
        if isinstance(texts, str):
            return {"input_ids": self._encode(texts)}
        return {"input_ids": [self._encode(text) for text in texts]}

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._vocabulary.tokenize(text, False, True)
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of token ids."""
        text: str = self._vocabulary.detokenize(list(ids), 64 * (len(ids) + 1), False, not skip_special_tokens)
        return text

    def apply_chat_template(
        self, conversation: list[dict[str, Any]], *, tokenize: bool, add_generation_prompt: bool, **values: Any
    ) -> str:
        """The conversation as text, rendered as transformers does."""
        assert not tokenize
        tokens = {"bos_token": self.bos_token, "eos_token": self.eos_token}
        rendered: Any = render_jinja_template(
            conversations=[conversation],
            chat_template=self.chat_template,
            add_generation_prompt=add_generation_prompt,
            **tokens | values,
        )
        return str(rendered[0][0])


def generate_greedily(
    model: GgufModel,
    prompt: Sequence[int],
    ends: Collection[int],
    limit: int,
    allow: Callable[[tuple[int, ...]], list[int]] | None,
) -> list[int]:
    """The most likely tokens up to one of `ends` or the limit; `allow` says which tokens may follow others."""
    tokens: list[int] = []
    logits = model.read(prompt)
    while True:
        places = None if allow is None else allow(tuple(tokens))
        token = int(np.argmax(logits)) if places is None else places[int(np.argmax(logits[places]))]
        if token in ends:
            return tokens
        tokens.append(token)
        if len(tokens) == limit:
            return tokens
        logits = model.read_more(token)


def _load(library: Any, path: Path) -> Any:
    """The model in a file.

    Raises:
        InputError: llama.cpp cannot load it, or it is no causal language model with attention alone.
    """

    class Model(library.LlamaModel):  # type: ignore[misc]
        """Has the number of tokens, which `get_logits_ith` of cyllama 0.2.18 looks for here and not in the vocabulary.

        Remove when a release passes tests/evaluate/test_gguf.py without it.
        """

        @property
        def n_vocab(self) -> int:
            return int(self.get_vocab().n_vocab)

    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError("it is not a GGUF file")
        model = Model(str(path), library.LlamaModelParams())
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} cannot be loaded by llama.cpp: {str(error).splitlines()[0]}") from None
    if model.is_recurrent() or model.is_hybrid() or model.has_encoder() or not model.has_decoder():
        model.close()
        raise InputError(f"{path} is not a causal language model with attention alone, the only kind evaluated as GGUF")
    return model
