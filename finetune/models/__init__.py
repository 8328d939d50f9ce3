"""Base models: from a name to a folder on this machine to a model in memory."""

from finetune.models.find import resolve

__all__ = ["resolve"]
