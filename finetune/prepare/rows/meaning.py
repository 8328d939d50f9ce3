"""Names of columns and keys that change what a row means, so that a row is refused rather than read without them."""

from __future__ import annotations

from collections.abc import Mapping

from finetune.errors import Unusable
from finetune.prepare.rows.columns import is_null

LABELS = ("sentiment", "category", "class", "target", "labels")  # other names for a label, beside a text
# "Do not learn this": LLaMA-Factory, TRL, Axolotl and OpenAI each use some of them. Only 1 and true do no harm.
LEARN = frozenset({"weight", "weights", "train", "training", "trainable", "loss", "loss_mask", "loss_weight"})
TOOLS = frozenset({"tools", "functions", "tool_calls", "function_call"})
MEDIA = frozenset({"image", "images", "video", "videos", "audio", "audios"})
PAIRS = frozenset(
    {"chosen", "rejected", "chosen_response", "rejected_response", "preferred_output", "non_preferred_output"}
)
KEYS = LEARN | TOOLS | MEDIA  # keys of a turn that change what it means

WHY: Mapping[str, str] = {
    **dict.fromkeys(LEARN, "says that the row is not to be learnt as it stands"),
    **dict.fromkeys(TOOLS, "belongs to tool calls"),
    **dict.fromkeys(MEDIA, "holds what the text is about, and slmtune reads text only"),
    **dict.fromkeys(PAIRS, "belongs to a pair of a preferred and a rejected answer"),
    **dict.fromkeys(LABELS, "looks like the label of the text"),
    **dict.fromkeys(("label", "kto_tag", "score"), "may mark the answer as a bad one"),
    **dict.fromkeys(("context", "passage"), "may be what the question is about"),
    "text_pair": "is the second of two texts",
    **dict.fromkeys(("choices", "options"), "holds the choices of the question"),
    "system": "holds the system message",
    "history": "holds the earlier turns",
}
RATED = LEARN | {"label", "kto_tag"}  # of these, 1 and true do no harm

# What the formats must not leave out, each beside the columns that it reads.
TEXTS = LEARN | PAIRS | {"context", "passage", "text_pair"}
CHATS = TEXTS | TOOLS | MEDIA | {"label", "kto_tag", "choices", "options", "system", "history"}
RATINGS = CHATS | {"score"}  # beside prompt and completion, as in data for KTO


def check_unread(name: str, value: object, format: str) -> None:
    """Refuse a column that a format does not read and must not leave out, unless its value does no harm.

    Raises:
        Unusable: names the column and says what to pass.
    """
    if not (name in RATED and _is_one(value)):
        problem = f"the column {name!r} {WHY[name]}, and the format {format} does not read it. {_hint(name)}"
        raise Unusable("unread_column", problem)


def check_key(name: str, value: object, where: str) -> bool:
    """Whether a key of a turn does no harm by not being read.

    Raises:
        Unusable: it changes what the turn means; says what to pass.
    """
    if name in KEYS and not (name in LEARN and _is_one(value)):
        what = WHY[name].replace("the row", "the turn")
        raise Unusable("unread_key", f"{where}: {name!r} {what}. {_hint(name)}")
    return True


def _hint(name: str) -> str:
    if name in LABELS:
        return f"To read it as the label: --map label={name}. To do without it: --ignore {name}"
    if name in PAIRS:
        return f"Map the columns to prompt, chosen and rejected with --map. To do without it: --ignore {name}"
    if name in TOOLS:
        return f"Write the rows as messages, with 'tool_calls' in turns and 'tools' in rows. To do without it: --ignore {name}"
    if name in RATED:
        return f"Drop such rows with --on-error skip. To learn them like the others: --ignore {name}"
    if name in {"context", "passage"}:
        return f"Map the columns to question, answer and context with --map. To do without it: --ignore {name}"
    return f"Drop such rows with --on-error skip. To do without it: --ignore {name}"


def _is_one(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_one, value))
    if isinstance(value, str):
        return value.strip().lower() in {"1", "1.0", "true"}
    return not is_null(value) and value in (1, True)
