"""Pushes an artifact to the Hub: checked first, private by default, in one commit or none."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DatasetInfo, HfApi, ModelInfo, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from finetune.artifacts import (
    MANIFEST,
    Adapter,
    Artifact,
    Corpus,
    EvalReport,
    Export,
    Model,
    open_any,
    read_manifest,
    sha256_of,
)
from finetune.cards.model_card import is_untouched, model_card
from finetune.errors import InputError, SlmtuneError
from finetune.hub.client import LOGIN, explain_errors, with_retry
from finetune.hub.disclosure import check_disclosure, check_no_key
from finetune.hub.repo import CARD, SHARED, Repo, check_repo_id

OVERTAKEN = (409, 412)  # someone else committed in the meantime: check again

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushResult:
    """The result of a push; `changed` is false if the Hub already had every file and no commit was made."""

    repo_id: str
    url: str
    kind: str
    commit: str
    private: bool
    files: int
    bytes: int
    changed: bool


def push(
    path: Path, repo_id: str, *, public: bool = False, message: str | None = None, token: str | None = None
) -> PushResult:
    """Upload a corpus (as a data set repository), adapter, model or export to the Hub, in one commit.

    A new repository is private unless `public`; the visibility of an existing one is never changed. If nothing has
    changed, no commit is made.

    Raises:
        InputError: the name is invalid, the user is not logged in, or `public` contradicts the repository's visibility.
        ArtifactError: the artifact is damaged.
        CheckFailedError: a file contains something that should not be shared.
        HubError: the Hub refused the request or cannot be reached.
    """
    check_repo_id(repo_id)
    artifact = open_any(Path(path), list(SHARED.values()))
    check_no_key(artifact.path)
    check_disclosure(_payload(artifact), token or get_token())
    with explain_errors(repo_id):
        api = HfApi(token=_require_token(token))
        user = _describe_user(api.whoami())
    repo = Repo(api, repo_id, "dataset" if isinstance(artifact, Corpus) else "model")
    with explain_errors(repo_id, user=user):
        info = _ensure_visibility(repo, public=public)
        refresh_card(artifact, repo)
        files = _payload(artifact)
        text = message or f"Push {artifact.kind} {artifact.fingerprint[:12]}"
        looks = count(1)
        commit = with_retry(lambda: _commit_changes(repo, artifact, files, text, next(looks)), also=OVERTAKEN)
    if commit == info.sha:
        log.info("%s already has this %s: nothing to commit.", repo_id, artifact.kind)
    size = sum(file.stat().st_size for file in files.values())
    return PushResult(
        repo_id, repo.url, artifact.kind, commit, bool(info.private), len(files), size, changed=commit != info.sha
    )


def refresh_card(artifact: Artifact, repo: Repo) -> None:
    """Rewrite the model card with the name of the repository and the adapter's evaluation, if there is one.

    A card that someone has edited is not changed.
    """
    card = artifact.path / CARD
    if not isinstance(artifact, Adapter | Model | Export) or (
        card.is_file() and not is_untouched(card.read_text("utf-8"))
    ):
        return
    text = model_card(artifact, _report_of(artifact), repo_id=repo.id, is_public=partial(_is_public, repo.api))
    if not card.is_file() or card.read_text("utf-8") != text:
        try:
            card.write_text(text, "utf-8")
        except OSError:
            log.warning("%s cannot be written: pushing the card as it is.", card)


def _report_of(artifact: Artifact) -> EvalReport | None:
    """The evaluation in the same workspace, if it belongs to this artifact."""
    adapter = artifact.fingerprint if isinstance(artifact, Adapter) else _adapter_in(artifact)
    folders = artifact.path.resolve().parents[: 2 if isinstance(artifact, Export) else 1]
    for folder in folders:
        try:
            report = EvalReport.open(folder / "eval")
        except SlmtuneError:
            continue
        if _adapter_in(report) == adapter:
            return report
        log.info("%s belongs to another adapter: the card does not quote it.", report.path)
    return None


def _adapter_in(artifact: Artifact) -> str | None:
    """The fingerprint of the adapter that an artifact was made from."""
    parent = artifact.manifest.get("parents", {}).get("adapter") or {}
    return parent.get("fingerprint")


def _is_public(api: HfApi, dataset: str) -> bool:
    """Whether a data set is public: only then may a card name it."""
    try:
        api.dataset_info(dataset, token=False)
    except HfHubHTTPError:
        return False
    return True


def _payload(artifact: Artifact) -> dict[str, Path]:
    """The files to upload: the manifest, the files it lists, and the card. Other files in the folder are not uploaded."""
    names = [*artifact.manifest["files"], MANIFEST]
    if (artifact.path / CARD).is_file():
        names.append(CARD)
    return {name: artifact.path / name for name in names}


def _require_token(token: str | None) -> str:
    token = token or get_token()
    if not token:
        raise InputError(f"Pushing needs a token with write access. {LOGIN}, or set HF_TOKEN")
    return token


def _describe_user(me: Mapping[str, Any]) -> str:
    names = [str(entry["name"]) for entry in me.get("orgs") or []]
    return f"{me['name']}, member of {', '.join(names)}" if names else str(me["name"])


def _ensure_visibility(repo: Repo, *, public: bool) -> ModelInfo | DatasetInfo:
    """Create the repository if necessary, and return its visibility and head.

    Raises:
        InputError: it exists with another visibility than requested.
    """
    try:
        info = repo.info()
    except RepositoryNotFoundError:
        # Never `private=None`: it means public.
        create = partial(repo.api.create_repo, repo.id, repo_type=repo.type, private=not public, exist_ok=True)
        with_retry(create)
        info = repo.info()
    if info.private and public:
        raise InputError(
            f"{repo.id} is private, and push never changes visibility. Change it at {repo.url}/settings, or drop --public"
        )
    if not info.private and not public:
        raise InputError(
            f"{repo.id} is public: anyone could read this. Add --public to confirm, or choose another name"
        )
    return info


def _commit_changes(repo: Repo, artifact: Artifact, files: Mapping[str, Path], message: str, looks: int) -> str:
    """Commit the files that differ from the repository's head, if any, and return the head that has them all.

    Safe to repeat: it checks the head first, and the Hub refuses the commit if the head has moved since. It checks
    `looks` times, because the Hub may still be processing an earlier attempt whose response was lost.
    """
    sums = artifact.manifest["files"]
    for _ in range(looks):
        head = repo.info().sha or ""
        remote = repo.files(head) if head else {}
        stale = [name for name, path in files.items() if not _is_same(path, sums.get(name), remote.get(name))]
        leftovers = _leftovers(repo, head, remote, files) if MANIFEST in stale else []
        if not stale and not leftovers:
            return head
    additions = [CommitOperationAdd(name, files[name]) for name in stale]
    deletions = [CommitOperationDelete(name, is_folder=False) for name in leftovers]
    log.info("Uploading %d of %d files to %s.", len(stale), len(files), repo.id)
    commit = repo.api.create_commit(
        repo.id, [*additions, *deletions], commit_message=message, repo_type=repo.type, parent_commit=head or None
    )
    return commit.oid


def _is_same(path: Path, sha256: str | None, remote: RepoFile | None) -> bool:
    if remote is None or remote.size != path.stat().st_size:
        return False
    if remote.lfs is not None:
        return remote.lfs.sha256 == (sha256 or sha256_of(path))
    data = path.read_bytes()  # files outside the Hub's large-file storage are small
    return remote.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _leftovers(repo: Repo, head: str, remote: Mapping[str, RepoFile], files: Mapping[str, Path]) -> list[str]:
    """Files of an earlier push that this artifact no longer has; files that others added to the repository stay."""
    if MANIFEST not in remote:
        return []
    manifest = read_manifest(repo.download(MANIFEST, head).parent) or {}
    earlier = manifest["files"] if manifest.get("kind") in SHARED else []
    return sorted(name for name in earlier if name in remote and name not in files)
