"""What config.json says about a model, in the forms that real files have."""

from __future__ import annotations

from typing import Any

import pytest

from finetune.models.config import config_fingerprint, context_of, vocabulary_of


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"n_positions": 1024, "n_ctx": 1024}, 1024),
        ({"state_size": 16}, None),
        ({"text_config": {"max_position_embeddings": 4096}}, 4096),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 4.0}}, 8192),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {"rope_type": "llama3", "factor": 32.0, "original_max_position_embeddings": 8192},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 1024,
                "rope_parameters": {
                    "sliding_attention": {"rope_type": "default"},
                    "full_attention": {"rope_type": "linear", "factor": 8.0},
                },
            },
            8192,
        ),
    ],
    ids=["plain", "gpt2", "without positions", "multimodal", "linear", "yarn", "llama3", "by type of layer"],
)
def test_context_is_what_the_positions_reach(config: dict[str, Any], context: int | None) -> None:
    assert context_of(config) == context


def test_vocabulary_is_that_of_the_text_model() -> None:
    assert vocabulary_of({"vocab_size": 7}) == vocabulary_of({"text_config": {"vocab_size": 7}}) == 7


@pytest.mark.parametrize("neutral", [{"transformers_version": "9"}, {"dtype": "float16"}, {"rope_scaling": None}])
def test_fingerprint_ignores_what_changes_no_number(neutral: dict[str, Any]) -> None:
    assert config_fingerprint({"rope_theta": 1e4} | neutral) == config_fingerprint({"rope_theta": 1e4})


@pytest.mark.parametrize("changed", [{"rope_theta": 5e5}, {"sliding_window": 64}, {"rope_scaling": {"factor": 2}}])
def test_fingerprint_notices_what_changes_a_number(changed: dict[str, Any]) -> None:
    assert config_fingerprint({"rope_theta": 1e4} | changed) != config_fingerprint({"rope_theta": 1e4})
