"""Options of commands that are not part of a recipe: defaults, bounds and descriptions, from which flags are built.

They are kept apart from the stages that read them so that `slmtune --help` loads no stage's libraries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.recipe.option_fields import option
from finetune.recipe.scrub import EVERYTHING, IDENTIFIERS, Policy
from finetune.recipe.values import Tracker

SEED = 42  # for everything random
ANSWER_TOKENS = 256  # maximum length of an answer unless the user sets one
DEFAULT_RATIO = "0.9/0.05/0.05"
POLICIES = (
    "What becomes of personal data: a tag such as [EMAIL], stars, an invented value that is the same throughout a document; or "
    "drop the row."
)
FINDS = (
    f"What to find: {IDENTIFIERS} are numbers and addresses that belong to somebody; {EVERYTHING} also dates, ages over 89, "
    "places and links; or kinds such as EMAIL,PHONE."
)
TAGGERS = (
    "Also find names and places with a tagger: own (which make tagger builds), a folder with one, or a spaCy model such as "
    "en_core_web_sm."
)


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How sources become a corpus."""

    sources: tuple[str, ...] = option(
        (),
        "File, folder, glob, archive, URL or hf://datasets/ID[@REVISION][:CONFIG][:SPLIT] to read instead of the "
        "recipe's sources.",
        flag="--source",
    )
    sample: bool = option(False, "Use the sample rows bundled with the domain.")
    tasks: tuple[str, ...] = option((), "Read only this task of the domain.", flag="--task")
    include: tuple[str, ...] = option((), "Also read this source of the domain, off by default.", metavar="ID")
    columns: Mapping[str, str] = option(
        {}, "Which column holds the text, label, question …", flag="--map", metavar="NAME=COLUMN"
    )
    label_separator: str | None = option(
        None, "Divide a text in the label column at TEXT into several labels.", metavar="TEXT"
    )
    encoding: str | None = option(
        None, "Encoding of the text files, such as cp1250.", metavar="NAME", value="detected for each file"
    )
    ignored: tuple[str, ...] = option(
        (),
        "Do without this column or key of turns, even if that changes what the rows mean.",
        flag="--ignore",
        metavar="NAME",
    )
    instruction: str | None = option(None, "Question to ask about rows of text and label that have no domain.")
    instruct: bool = option(False, "Derive questions and answers from documents, by rules.")
    chunk_tokens: int = option(  # leaves room for the chat template in the 1,024 tokens of a training row
        768, "Split long texts into chunks of at most N tokens.", ge=32
    )
    language: str | None = option(
        None,
        "Keep only rows in these languages, such as en,de; or any.",
        metavar="CODES",
        value="the recipe's, else any",
    )
    clean: Literal["full", "light", "none"] = option(
        "full",
        "How much to clean: full leaves the characters of chats, code and tables alone; light those of all texts; none "
        "changes nothing but control tokens.",
    )
    quality: bool = option(True, "Drop rows without content or full of repetition.")
    split_ratio: str | None = option(
        None, "Shares of the train, validation and test splits.", metavar="A/B/C", value=DEFAULT_RATIO
    )
    split_by_time: str | None = option(
        None, "Split by date: the newest rows become test, the next newest validation.", metavar="COLUMN[=FROM/FROM]"
    )
    stratify: bool = option(
        False, "Give each label its exact share in every split; rows added later may move old ones."
    )
    limit: int | None = option(None, "Keep at most N rows per source and split.", ge=1)
    seed: int = option(SEED, "Seed for the split and for the rows that --limit keeps.", ge=0)
    dedup: bool = option(True, "Drop exact and near-duplicates of other rows.")
    near_duplicates: float = option(  # Jaccard index of word 5-grams: Lee et al. 2022, C4 and RealNews
        0.8, "Similarity at which rows are near-duplicates; 1: exact only.", ge=0.5, le=1, metavar="SIMILARITY"
    )
    against: tuple[Path | str, ...] = option(
        (), "Drop rows that this earlier corpus already contains.", metavar="CORPUS"
    )
    decontaminate: tuple[str, ...] = option((), "Also drop rows that contain items of this eval set.", metavar="SOURCE")
    recipe_evals: bool = option(True, "Drop rows that contain items of the domain's eval sets.")
    scrub: bool = option(True, "Replace personal data, such as e-mail addresses, telephone and account numbers.")
    scrub_policy: Policy | None = option(None, POLICIES, value="the recipe's, else tag")
    scrub_find: str | None = option(None, FINDS, metavar="KINDS", value=f"the recipe's, else {IDENTIFIERS}")
    tagger: str | None = option(None, TAGGERS, metavar="MODEL", value="the recipe's, else none")
    canaries: int = option(
        0,
        "Draw N random secrets and plant about half of them in the training rows: slmtune audit finds out which of them an "
        "adapter has memorised.",
        ge=0,
        le=2000,
    )
    canary_key: Path | None = option(
        None,
        "File that tells the canaries; it must lie outside the corpus, and is never pushed.",
        metavar="FILE",
        value="CORPUS-canaries.key, next to the corpus",
    )
    canary_seed: int | None = option(
        None, "Draw the canaries from this seed, for tests: whoever guesses it knows them.", ge=0
    )
    on_error: Literal["fail", "skip"] = option("fail", "What to do about a row or file that cannot be read.")
    accept_noncommercial: bool = option(False, "Also use sources whose licence forbids commercial use.")
    license: str | None = option(None, "Licence of your own rows, by its Hub identifier.")
    workers: int = option(1, "Number of processes; the corpus does not depend on it.", ge=1, value="all cores")
    engine: Literal["local", "ray"] = option(
        "local",
        "Where to work: in processes of this machine, or on Ray, also on many machines; the corpus is the same.",
    )
    ray_address: str | None = option(
        None,
        "Ray cluster: HOST:PORT of its head node, or auto on a node of it.",
        metavar="ADDRESS",
        value="RAY_ADDRESS, else this machine",
    )


@dataclass(frozen=True, kw_only=True)
class ScrubOptions:
    """How personal data is found in files, and what becomes of it."""

    policy: Policy | None = option(None, POLICIES, value="the recipe's, else tag")
    find: str | None = option(None, FINDS, metavar="KINDS", value=f"the recipe's, else {EVERYTHING}")
    tagger: str | None = option(None, TAGGERS, metavar="MODEL", value="the recipe's, else none")
    group_by: str | None = option(
        None, "Rows with the same value in this column (a patient) are one document to surrogates.", metavar="COLUMN"
    )
    seed: int = option(SEED, "Seed of surrogates and of the rows that --check draws.", ge=0)


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """How much of a corpus to show."""

    samples: int = option(3, "Number of rows to show per task.", ge=0)


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Which rows to evaluate on, and how."""

    split: Literal["test", "validation", "train"] = option("test", "Split to evaluate on.")
    tasks: tuple[str, ...] = option(
        (),
        "Evaluate only this task: one of the corpus (named after its source), another source of the domain, or a file of rows.",
        flag="--task",
        metavar="NAME|FILE|NAME=FILE",
    )
    accept_noncommercial: bool = option(False, "Also use sources whose licence forbids commercial use.")
    allow_train_overlap: bool = option(
        False, "Evaluate even on rows that the adapter was trained on; gives figures with and without them."
    )
    limit: int | None = option(None, "At most N rows per task.", ge=1)
    few_shot: int = option(
        5, "Also score the base model with at most N examples from the training split in its prompt; 0: not.", ge=0
    )
    vs: tuple[str, ...] = option(
        (),
        "Also score this model: the folder of an adapter or model, the name of a base model, a GGUF file, or URL[#MODEL] "
        "of an OpenAI-compatible server. NAME= before it names it in the report.",
        metavar="[NAME=]MODEL",
    )
    vs_key_file: str | None = option(
        None, "File with the API key for servers of --vs.", metavar="FILE", value="the key in OPENAI_API_KEY"
    )
    batch_size: int = option(16, "Rows per forward pass.", ge=1)
    workers: int = option(
        1, "Processes that ask models side by side, each with its share of the cores, or a GPU of its own.", ge=1
    )
    max_new_tokens: int = option(160, "Maximum length of a generated answer, in tokens.", ge=1)
    gate: tuple[str, ...] = option(
        (),
        "Exit with code 3 unless the adapter meets these conditions, such as news.weighted_f1>=0.8,news.delta>0.",
        metavar="CONDITIONS",
    )
    lm_eval: tuple[str, ...] = option(
        (), "Also evaluate on this task of lm-evaluation-harness: its name, or a YAML file.", metavar="TASK"
    )
    lm_eval_chat_template: bool = option(True, "Ask these tasks in the chat template of the model.")
    report_to: Tracker = option("none", "Experiment tracker that logs the figures.")
    forgetting: bool = option(True, "Also measure what the adapter has forgotten, with general questions and texts.")


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """How many rows an audit looks at, and how."""

    limit: int = option(150, "At most N training rows, and as many held-out ones of the same sources.", ge=1)
    extractions: int = option(
        64, "Continue the answers of at most N training rows, and of as many held-out ones.", ge=0
    )
    samples: int = option(64, "Sample N texts without any question.", ge=0)
    max_new_tokens: int = option(  # Carlini et al. 2023, Quantifying memorization: 50 tokens after a prefix
        50, "Length of a continuation or sample, in tokens.", ge=1
    )
    batch_size: int = option(16, "Rows per forward pass.", ge=1)
    seed: int = option(SEED, "Seed for the rows and samples.", ge=0)
    show_text: bool = option(False, "Also write the texts that leaked into the report; they are private.")


ExportFormat = Literal["gguf", "gguf-lora", "onnx", "executorch", "vllm", "fp8"]
GgufPrecision = Literal["f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m"]
OnnxPrecision = Literal["f32", "int8"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """For which runtime, and in which precision."""

    format: ExportFormat = option(
        "gguf",
        "gguf: a whole model for llama.cpp and Ollama; gguf-lora: an adapter alone, for its base model there; onnx: an encoder "
        "or a small language model for onnxruntime and browsers; executorch: an encoder for phones; vllm: an adapter for vLLM "
        "and SGLang; fp8: a whole model for these, in 8-bit floats.",
    )
    quantization: GgufPrecision | OnnxPrecision | None = option(
        None, "Precision of the weights; for onnx f32 or int8.", value="q8_0 for gguf, f32 for gguf-lora and onnx"
    )
    ollama: bool = option(False, "Also write a Modelfile for Ollama, with the chat template and the ends of turns.")


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """Onto which weights an adapter is merged, and what is accepted."""

    onto: Literal["auto", "original", "dequantized"] = option(
        "auto",
        "Weights to merge onto: the original ones, or those that the adapter saw in training (dequantized); auto measures both "
        "and keeps the closer merge.",
    )
    combination: Literal["cat", "linear", "ties", "dare_linear", "dare_ties"] = option(
        "cat", "How PEFT makes one of several adapters; cat: the weighted sum of what they change."
    )
    density: float = option(
        0.5, "Share of each adapter's numbers that ties and dare keep.", ge=0.01, le=1, metavar="SHARE"
    )
    allow_drift: bool = option(
        False,
        "Keep the merged model even if it answers differently from the adapter; it is then marked as not verified.",
    )


Engine = Literal["transformers", "llama.cpp", "auto"]  # what computes in the process of the server


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What computes, where the server listens, whom it answers, and what it logs."""

    engine: Engine | Literal["vllm"] = option(
        "transformers",
        "What computes the answers; auto: transformers on a GPU, else the faster one as measured at the first start; vllm: "
        "vLLM's own server, for many people on a large GPU.",
    )
    host: str = option("127.0.0.1", "Address to listen on; any but a loopback address requires a key.")
    port: int = option(8000, "Port to listen on; 0: any free port.", ge=0, le=65535)
    ssl_certfile: Path | None = option(
        None, "Certificate of the server in PEM format; with it, the server speaks HTTPS."
    )
    ssl_keyfile: Path | None = option(None, "Private key of the certificate, without a passphrase.")
    adapter_dir: Path | None = option(
        None, "Folder of adapters: all are served if none is named, and administrators may load others.", metavar="DIR"
    )
    requests_per_minute: int | None = option(None, "Requests per minute and key; by default without limit.", ge=1)
    concurrency: int | None = option(None, "Requests at once per key; by default without limit.", ge=1)
    drain_seconds: float = option(
        5, "Seconds that requests in progress have to finish after Ctrl-C or SIGTERM.", ge=0, le=3600
    )
    deadline: float | None = option(None, "Seconds that an answer may take; by default without limit.", ge=0.1)
    cors_origins: tuple[str, ...] = option(
        (), "Let web pages of this origin use the server.", flag="--cors-origin", metavar="URL"
    )
    log_prompts: bool = option(False, "Also log the text of prompts and answers.")


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """How the model answers in a conversation."""

    max_new_tokens: int = option(ANSWER_TOKENS, "Maximum length of an answer, in tokens.", ge=1)
    temperature: float = option(0, "Sampling temperature; 0: always the most likely token.", ge=0, le=2)


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Which settings a sweep tries."""

    search: tuple[str, ...] = option(
        (),
        "A setting to search: NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=VALUE,VALUE,…; by default the learning rate, the rank, "
        "the batch and the epochs, around those of the recipe.",
        metavar="NAME=VALUES",
    )
    trials: int = option(20, "Number of runs, of which some are stopped early.", ge=1)
    workers: int = option(1, "Runs at the same time, each with its share of the cores, or a GPU of its own.", ge=1)
