"""Adapter or Model → Export: files for other runtimes, compared with the adapter in the runtime that will run them."""

from finetune.export.request import Agreement, ExportRequest, ExportResult
from finetune.export.run import export_artifact

__all__ = ["Agreement", "ExportRequest", "ExportResult", "export_artifact"]
