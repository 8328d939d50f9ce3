"""Sources → Corpus: cleans, compares, splits and writes documents and rows."""

from finetune.prepare.request import PrepareRequest, PrepareResult
from finetune.prepare.run import prepare

__all__ = ["PrepareRequest", "PrepareResult", "prepare"]
