"""Sharing through the Hugging Face Hub: artifacts out (`push`) and in (`pull`), verified at both ends."""

from finetune.hub.download import PullResult, pull
from finetune.hub.upload import PushResult, push

__all__ = ["PullResult", "PushResult", "pull", "push"]
