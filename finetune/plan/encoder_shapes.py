"""config.json of an encoder → its linear layers, parameters and activations, without building it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.models.config import context_of
from finetune.plan.model_shape import Linear, ModelShape

CLASSES = 2  # of the head, for the plan: more take nothing worth counting
# The defaults of transformers for keys missing in config.json, under the names of BERT.
_BERT: dict[str, Any] = {
    "type_vocab_size": 2,
    "max_position_embeddings": 512,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "distilbert": _BERT | {"type_vocab_size": 0},
    "mobilebert": _BERT
    | {
        "hidden_dropout_prob": 0.0,
        "true_hidden_size": 128,
        "embedding_size": 128,
        "num_feedforward_networks": 4,
        "classifier_activation": True,
    },
    "modernbert": _BERT | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}
NAMES = {  # of DistilBERT and ModernBERT, and those of BERT
    "dim": "hidden_size",
    "hidden_dim": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}


def make_encoder_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape of an encoder with a head for classes.

    Raises:
        KeyError: a size is missing.
    """
    kind = str(config["model_type"])
    values: dict[str, int] = ENCODERS[kind] | {
        NAMES.get(key, key): value for key, value in config.items() if value is not None
    }
    hidden, inner, heads = (values[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads"))
    layers, vocabulary = values["num_hidden_layers"], values["vocab_size"]
    width = values["true_hidden_size"] if kind == "mobilebert" else hidden
    linears = _linears(kind, values, hidden, inner, width)
    return ModelShape(
        hidden=hidden,
        inner=inner,
        layers=layers,
        heads=heads,
        vocabulary=CLASSES,
        tokenizer=vocabulary,
        linears=linears,
        outer=_outer(kind, values, hidden),
        other_parameters=_count_others(kind, values, hidden, width, linears),
        activations=_count_activations(kind, values, hidden, inner, width, heads),
        in_float32=heads,
        repeated=2 * hidden if kind == "modernbert" else 0,  # what queries, keys and values are views of
        recomputed=0,
        passing=2 * inner,
        queries=width,
        keys=2 * width,
        whole_scores=False,
        softcapped_logits=False,
        full_logits=False,
        packs=kind != "mobilebert",  # whose tokens see their neighbours
        shares=False,
        context=context_of(config),
        kind="encoder",
        head_parameters=_count_head(kind, values, hidden),
        drops_scores=bool(values["attention_probs_dropout_prob"]),
    )


def _outer(kind: str, values: Mapping[str, int], hidden: int) -> tuple[Linear, ...]:
    """The layer that widens the embeddings of three neighbours."""
    name = "embeddings.embedding_transformation"
    return (Linear(name, 3 * values["embedding_size"], hidden, True),) if kind == "mobilebert" else ()


def _linears(kind: str, values: Mapping[str, int], hidden: int, inner: int, width: int) -> tuple[Linear, ...]:
    if kind == "distilbert":
        names = ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin")
        attention = tuple(Linear(name, hidden, hidden, True) for name in names)
        return (*attention, Linear("ffn.lin1", hidden, inner, True), Linear("ffn.lin2", inner, hidden, True))
    if kind == "modernbert":
        return (
            Linear("attn.Wqkv", hidden, 3 * hidden, False),
            Linear("attn.Wo", hidden, hidden, False),
            Linear("mlp.Wi", hidden, 2 * inner, False),
            Linear("mlp.Wo", inner, hidden, False),
        )
    value = Linear("attention.self.value", hidden, width, True)
    attention = (
        *(Linear(f"attention.self.{name}", width, width, True) for name in ("query", "key")),
        value,
        Linear("attention.output.dense", width, width, True),
    )
    if kind == "bert":
        return (*attention, *_feed_forward("", hidden, inner))
    count = values["num_feedforward_networks"] - 1
    return (
        *(Linear(f"bottleneck.{name}.dense", hidden, width, True) for name in ("input", "attention")),
        *attention,
        *(layer for number in range(count) for layer in _feed_forward(f"ffn.{number}.", width, inner)),
        *_feed_forward("", width, inner),
        Linear("output.bottleneck.dense", width, hidden, True),
    )


def _feed_forward(prefix: str, width: int, inner: int) -> tuple[Linear, Linear]:
    return (
        Linear(f"{prefix}intermediate.dense", width, inner, True),
        Linear(f"{prefix}output.dense", inner, width, True),
    )


def _count_others(kind: str, values: Mapping[str, int], hidden: int, width: int, linears: tuple[Linear, ...]) -> int:
    """Embeddings, norms and biases, and the pooler."""
    layers, positions = values["num_hidden_layers"], values["max_position_embeddings"]
    biases = sum(linear.outputs for linear in linears if linear.bias)
    if kind == "modernbert":  # norms without bias, and none before the first attention
        return values["vocab_size"] * hidden + 2 * layers * hidden + hidden
    if (
        kind == "mobilebert"
    ):  # norms of both bottlenecks, of attention, of each feed-forward network and of the whole block
        norms = 2 * width * (2 + 1 + values["num_feedforward_networks"]) + 2 * hidden
        embeddings = values["vocab_size"] * values["embedding_size"]
        embeddings += (positions + values["type_vocab_size"] + 2 + 1) * hidden  # their norm, and the bias of a layer
        return embeddings + layers * (norms + biases) + _count_pooler(kind, values, hidden)
    embeddings = (values["vocab_size"] + positions + values["type_vocab_size"] + 2) * hidden
    return embeddings + layers * (4 * hidden + biases) + _count_pooler(kind, values, hidden)


def _count_pooler(kind: str, values: Mapping[str, int], hidden: int) -> int:
    has = kind == "bert" or (kind == "mobilebert" and values["classifier_activation"])
    return hidden * hidden + hidden if has else 0


def _count_head(kind: str, values: Mapping[str, int], hidden: int) -> int:
    """Weights that are trained whole: those above the encoder, and its pooler."""
    classes = (hidden + 1) * CLASSES
    if kind == "distilbert":
        return classes + hidden * hidden + hidden
    if kind == "modernbert":
        return classes + hidden * hidden + hidden  # a layer without bias, and a norm
    return classes + _count_pooler(kind, values, hidden)


def _count_activations(kind: str, values: Mapping[str, int], hidden: int, inner: int, width: int, heads: int) -> int:
    """Numbers per token that autograd keeps for a block of packed rows, measured as in plan/shapes.py.

    Query, key and value, padded; what attention returns, and that packed again; the inputs of linear layers; input and
    scales of norms; the input of the activation. A dropout keeps a number for each of its own.
    """
    if kind == "modernbert":  # what goes into its feed-forward block, and three more
        return 9 * hidden + 4 * inner + 4 + heads
    if kind == "mobilebert":  # norms without statistics; ReLU keeps its output, which the next layer keeps too
        return hidden + 7 * width + values["num_feedforward_networks"] * (width + inner) + heads
    dropouts = 0 if not values["hidden_dropout_prob"] else 1 if kind == "distilbert" else 2
    return (9 + dropouts) * hidden + 2 * inner + 4 + heads
