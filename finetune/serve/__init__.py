"""Artifacts behind an HTTP server that clients of the OpenAI API can talk to."""

from finetune.serve.run import serve
from finetune.serve.targets import ServeTarget

__all__ = ["ServeTarget", "serve"]
