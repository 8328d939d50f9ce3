"""Serves artifacts over HTTP for clients of the OpenAI API."""

from finetune.serve.run import serve
from finetune.serve.targets import ServeTarget

__all__ = ["ServeTarget", "serve"]
