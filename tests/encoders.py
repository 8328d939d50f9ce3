"""Tiny random encoders of the real classes, with a real tokenizer of their kind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from finetune.artifacts import Adapter, writing
from finetune.models.find import find_base
from finetune.models.heads import TASK_TYPES, Head, head_modules
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe

from .conftest import WORDS

NEWS = Head("classification", ("bearish", "neutral", "bullish"))
TOPICS = Head("multi-label", ("rates", "stocks", "bonds"))
ANSWERS = Head("extraction")

ENCODERS = ("bert", "distilbert", "mobilebert", "modernbert")
COMMON = {"vocab_size": 300, "pad_token_id": 0, "max_position_embeddings": 128, "initializer_range": 0.15}
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
SHAPES: dict[str, dict[str, Any]] = {
    "bert": SHAPE,
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4},
    "mobilebert": {
        **SHAPE,
        "intermediate_size": 32,
        "embedding_size": 16,
        "intra_bottleneck_size": 16,
        "num_feedforward_networks": 2,
        "classifier_activation": False,
    },
    "roberta": {**SHAPE, "type_vocab_size": 1},
    "modernbert": SHAPE | {"local_attention": 8, "global_attn_every_n_layers": 3},
}

SHALLOW: dict[str, dict[str, int]] = {  # one layer of each kind: to convert each more takes time and proves nothing
    "bert": {"num_hidden_layers": 1},
    "distilbert": {"n_layers": 1},
    "mobilebert": {"num_hidden_layers": 1},
    "modernbert": {"num_hidden_layers": 2, "global_attn_every_n_layers": 2},
}


def encoder_config(kind: str, **more: Any) -> Any:
    """A tiny configuration of the real class."""
    from transformers import AutoConfig

    return AutoConfig.for_model(kind, **COMMON | SHAPES[kind] | more)


def encoder_tokenizer(*, pairs: bool = True) -> Any:
    """A WordPiece tokenizer as BERT's; `pairs`: with token types, which DistilBERT and ModernBERT do not have."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = [
        *special,
        *",.?",
        *sorted({*re.findall("[a-z]+", WORDS.lower())}),
        *letters,
        *(f"##{one}" for one in letters),
    ]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"] if pairs else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=names,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def write_encoder(folder: Path, kind: str, **more: Any) -> Path:
    """A folder with a tiny random encoder, as published ones are: pretrained on masked text, without a head."""
    import torch
    from transformers import AutoModelForMaskedLM

    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(encoder_config(kind, **more)).save_pretrained(folder)
    encoder_tokenizer(pairs=kind in ("bert", "mobilebert")).save_pretrained(folder)
    return folder


def write_encoder_adapter(
    folder: Path, base_folder: Path, head: Head, seed: int = 0, std: float = 0.3, **settings: Any
) -> Path:
    """An adapter artifact with random LoRA matrices and a random head, which is stored whole."""
    import torch
    from peft import LoraConfig, get_peft_model

    base = find_base(str(base_folder))
    torch.manual_seed(seed)
    encoder = head.auto_class.from_pretrained(base_folder, **head.config)
    own = list(head_modules(encoder))
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules="all-linear",
        exclude_modules=own,
        modules_to_save=own,
        task_type=TASK_TYPES[head.kind],
    )
    if encoder.config.model_type == "mobilebert":
        std /= 15  # it has no layer norms that would keep activations small
    model = get_peft_model(encoder, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=std)
    with writing(folder, Adapter, overwrite=False) as writer:
        config.base_model_name_or_path = base.name  # not a folder of this machine
        model.save_pretrained(str(writer.folder), save_embedding_layers=False)
        (writer.folder / "README.md").unlink()
        encoder.config.save_pretrained(writer.folder)
        load_tokenizer(base_folder, base).save_pretrained(writer.folder)
        recipe = AdapterRecipe(model=str(base_folder), **{"quantization": "none", "max_length": 64, **settings})
        writer.manifest["config"] = recipe.model_dump(mode="json") | {"model": base.name}
        writer.manifest["parents"] = {"base_model": base.describe(), "corpus": {"fingerprint": "0" * 64, "sources": []}}
        writer.manifest["head"] = head.describe()
    return folder
