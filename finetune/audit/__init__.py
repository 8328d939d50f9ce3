"""Adapter + Corpus → AuditReport: what an adapter tells about the rows that it was trained on."""

from finetune.audit.request import AuditRequest, AuditResult
from finetune.audit.run import audit, require_no_leak

__all__ = ["AuditRequest", "AuditResult", "audit", "require_no_leak"]
