"""Serves artifacts over HTTP for clients of the OpenAI API."""

from finetune.serve.api.keys import ApiKey
from finetune.serve.run import serve
from finetune.serve.targets import ServeTarget
from finetune.serve.vllm import Handover, hand_over

__all__ = ["ApiKey", "Handover", "ServeTarget", "hand_over", "serve"]
