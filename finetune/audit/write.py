"""Writes the files of an audit: for programs and for people."""

from __future__ import annotations

from dataclasses import asdict

from finetune.artifacts import Adapter, ArtifactWriter, Corpus, write_json
from finetune.audit.request import AuditRequest, AuditResult
from finetune.cards.audit_page import audit_page


def write_report(
    writer: ArtifactWriter, request: AuditRequest, adapter: Adapter, corpus: Corpus, result: AuditResult
) -> None:
    """Write the manifest's part about the audit, audit.json and audit.html, without the text of any row but of leaks."""
    names = ("limit", "extractions", "samples", "max_new_tokens", "seed")
    writer.manifest["config"] = {name: getattr(request, name) for name in names}
    writer.manifest["parents"] = {
        "adapter": {"fingerprint": adapter.fingerprint},
        "corpus": {"fingerprint": corpus.fingerprint, "domain": corpus.manifest.get("domain")},
        "base_model": adapter.manifest["parents"]["base_model"],
    }
    figures = {name: value for name, value in asdict(result).items() if name != "report"}
    data = {
        **figures,
        **{name: writer.manifest[name] for name in ("config", "parents", "libraries", "slmtune_version", "created")},
    }
    write_json(writer.folder / "audit.json", data)
    (writer.folder / "audit.html").write_text(audit_page(data), "utf-8")
