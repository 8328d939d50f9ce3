"""Sources → Corpus: documents and rows cleaned, compared, split and written."""

from finetune.prepare.request import PrepareRequest, PrepareResult
from finetune.prepare.run import prepare

__all__ = ["PrepareRequest", "PrepareResult", "prepare"]
