"""Base models that slmtune knows by a short name, as data. Any Hub id or local folder works without a preset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["causal", "encoder"]


@dataclass(frozen=True)
class Preset:
    """What is known about a base model before anything is downloaded.

    Args:
        name: what `--model` takes.
        hub_id: its repository on the Hugging Face Hub.
        license: its licence, by the Hub's identifier.
        parameters: number of weights; tied embeddings count once, and an encoder's without its head.
            tests/plan/test_plan.py compares it with the shape in plan/published.py.
        context: maximum number of tokens that it can read.
        gated: whether the Hub requires consent to the licence before a download.
        kind: a causal language model continues text; an encoder only reads it.
        chat_template: used if its tokenizer has none.
    """

    name: str
    hub_id: str
    license: str
    parameters: int
    context: int
    gated: bool = False
    kind: Kind = "causal"
    chat_template: str | None = None


# The form of instruction and answer that Phi-2's card documents.
PHI2_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content + '\n\n' }}"
    "{% elif message.role == 'user' %}{{ 'Instruct: ' + message.content + '\n' }}"
    "{% else %}{{ 'Output: ' + message.content + eos_token + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Output:' }}{% endif %}"
)

# For base models whose tokenizer has no template: plain words, so that no new token has to be learnt.
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content + '\n\n' }}"
    "{% elif message.role == 'user' %}{{ 'Question: ' + message.content + '\n' }}"
    "{% else %}{{ 'Answer: ' + message.content + eos_token + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
)

_ALL = (
    Preset("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0", 134_515_008, 8192),
    Preset("smollm2-360m", "HuggingFaceTB/SmolLM2-360M-Instruct", "apache-2.0", 361_821_120, 8192),
    Preset("smollm2-1.7b", "HuggingFaceTB/SmolLM2-1.7B-Instruct", "apache-2.0", 1_711_376_384, 8192),
    Preset("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B-Instruct", "apache-2.0", 494_032_768, 32768),
    Preset("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B-Instruct", "apache-2.0", 1_543_714_304, 32768),
    Preset("llama-3.2-1b", "meta-llama/Llama-3.2-1B-Instruct", "llama3.2", 1_235_814_400, 131072, gated=True),
    Preset(
        "phi-2",
        "microsoft/phi-2",
        "mit",
        2_779_683_840,
        2048,
        chat_template=PHI2_TEMPLATE,
    ),
    Preset("gemma-2b", "google/gemma-2b-it", "gemma", 2_506_172_416, 8192, gated=True),
    Preset("gemma-2-2b", "google/gemma-2-2b-it", "gemma", 2_614_341_888, 8192, gated=True),
    Preset("gemma-3-270m", "google/gemma-3-270m-it", "gemma", 268_098_176, 32768, gated=True),
    Preset("distilbert", "distilbert/distilbert-base-uncased", "apache-2.0", 66_362_880, 512, kind="encoder"),
    Preset("mobilebert", "google/mobilebert-uncased", "apache-2.0", 24_581_888, 512, kind="encoder"),
    Preset("minilm-l6", "sentence-transformers/all-MiniLM-L6-v2", "apache-2.0", 22_713_216, 512, kind="encoder"),
    Preset("bert-base", "google-bert/bert-base-uncased", "apache-2.0", 109_482_240, 512, kind="encoder"),
    Preset("modernbert-base", "answerdotai/ModernBERT-base", "apache-2.0", 149_014_272, 8192, kind="encoder"),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}


def list_presets(kind: Kind) -> str:
    """The names of the presets of a kind, for messages."""
    return ", ".join(preset.name for preset in _ALL if preset.kind == kind)


# The end of messages that refuse a model.
KNOWN = (
    f"slmtune trains causal language models ({list_presets('causal')}, or another) and encoders "
    f"({list_presets('encoder')}, or another)"
)


def find_preset(name: str) -> Preset | None:
    """The preset of a short name or of its Hub id, if there is one."""
    return PRESETS.get(name) or next((preset for preset in _ALL if preset.hub_id.lower() == name.lower()), None)
