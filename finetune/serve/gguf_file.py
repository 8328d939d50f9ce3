"""A GGUF file as a model to serve: its tokenizer and its chat template are those in the file."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetune.artifacts import Export, read_manifest, sampled_fingerprint
from finetune.errors import InputError
from finetune.models.find import BaseModel
from finetune.models.load import LoadedModel
from finetune.models.presets import PLAIN_TEMPLATE
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import ServedModel
from finetune.serve.runners.llama_runner import LlamaRunner
from finetune.serve.runners.memory import require_weights_fit

# On which the tokenizers of transformers and of llama.cpp must agree.
SAMPLES = (
    "Hello, world!",
    "It's 12345.67 %\n\n\tdone  twice",
    "Größe, naïve, 你好, привет, 🙂",
    "x = {'a': [1, 2]}  # no",
)


def find_gguf(place: Path | str) -> Path | None:
    """The GGUF file that a target names: itself, or that of an export; None if it is something else."""
    path = Path(place)
    if path.suffix.lower() == ".gguf" and path.is_file():
        return path
    manifest = read_manifest(path) or {}
    if manifest.get("kind") != Export.kind or manifest.get("config", {}).get("format") != "gguf":
        return None
    files = sorted(Export.open(path).path.glob("model-*.gguf"))
    return files[0] if files else None


def open_gguf(name: str, file: Path, max_memory: int | None = None) -> Engine:
    """An engine for the model in a GGUF file, computed by llama.cpp.

    Raises:
        InputError: llama.cpp cannot load it, or transformers reads texts as other tokens than llama.cpp does.
    """
    require_weights_fit(file.stat().st_size, max_memory)
    runner = LlamaRunner(file, max_memory=max_memory)
    tokenizer = _load_tokenizer(file)
    if any(runner.tokenize(text) != tokenizer(text, add_special_tokens=False)["input_ids"] for text in SAMPLES):
        raise InputError(
            f"The tokenizer in {file} is not one that slmtune reads as llama.cpp does. Serve the model from which the file was "
            "made, or the file itself with llama-server"
        )
    base = BaseModel(name, file.parent, "local", sampled_fingerprint([file]))
    return Engine(LoadedModel(None, tokenizer, base), [ServedModel(name)], runner=runner)


def _load_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            file.parent, gguf_file=file.name, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise InputError(
            f"The tokenizer in {file} cannot be read: {str(error).splitlines()[0]}. Serve the model from which the file was "
            "made"
        ) from None
    tokenizer.chat_template = tokenizer.chat_template or PLAIN_TEMPLATE
    return tokenizer
