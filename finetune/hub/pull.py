"""Pulls an artifact from the Hub: one commit, only the files in its manifest, verified before the folder appears."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from finetune.artifacts import MANIFEST, Artifact, ensure_replaceable, make_folder, read_manifest, write_aside
from finetune.errors import ArtifactError, InputError, SlmtuneError, UnknownNameError
from finetune.hub.client import explain_errors
from finetune.hub.disclosure import is_shareable
from finetune.hub.repo import CARD, SHARED, Repo, check_repo_id

LARGEST_MANIFEST = 64 << 20  # bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PullResult:
    """A verified artifact from the Hub and the commit that it came from."""

    path: Path
    kind: str
    repo_id: str
    revision: str
    verified: bool


def pull(repo_id: str, out: Path, *, revision: str | None = None, overwrite: bool = False) -> PullResult:
    """Download an artifact that slmtune pushed, verify it, and put it at `out`.

    `repo_id` may start with `datasets/` or `models/` if both kinds have a repository of that name; models take
    precedence. Only files that the manifest lists are downloaded, and none that could run code.

    Raises:
        UnknownNameError: no such repository or revision, or none that this user may read.
        InputError: the repository was not made by slmtune.
        OutputExistsError: `out` is not empty and `overwrite` is false.
        ArtifactError: the files do not match the manifest.
        HubError: the Hub refused the request or cannot be reached.
    """
    prefix, _, rest = repo_id.partition("/")
    types = {"models": ["model"], "datasets": ["dataset"]}.get(prefix if rest.count("/") else "", ["model", "dataset"])
    name = rest if len(types) == 1 else repo_id
    check_repo_id(name)
    out = Path(out).absolute()
    ensure_replaceable(out, overwrite=overwrite)
    with explain_errors(name):
        repo, commit, remote = _find_artifact(name, types, revision)
        with write_aside(out, sync=True) as staging:
            make_folder(staging)
            kind = _download(repo, commit, remote, staging)
            artifact = _verify(kind, staging, f"{name} at {commit[:12]}")
    return PullResult(out, artifact.kind, name, commit, verified=True)


def _find_artifact(name: str, types: list[str], revision: str | None) -> tuple[Repo, str, dict[str, RepoFile]]:
    """The first repository of this name that contains an artifact, its commit, and its files."""
    exists = False
    for kind in types:
        repo = Repo(HfApi(), name, kind)
        try:
            commit = str(repo.info(revision).sha)
            remote = repo.files(commit)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            continue
        exists = True
        if MANIFEST in remote and remote[MANIFEST].size <= LARGEST_MANIFEST:
            return repo, commit, remote
    if exists:
        raise InputError(
            f"{name} was not made by slmtune: it has no {MANIFEST}. To use a base model, pass its name with --model"
        )
    raise UnknownNameError(
        "repository", name, [], f"If it is private, log in with: hf auth login. The Hub is {constants.ENDPOINT}"
    )


def _download(repo: Repo, commit: str, remote: Mapping[str, RepoFile], folder: Path) -> type[Artifact]:
    """Download the manifest and then exactly the files it lists; return the kind of artifact."""
    where = f"{repo.id} at {commit[:12]}"
    manifest = read_manifest(repo.download(MANIFEST, commit, folder).parent) or {}
    if manifest.get("kind") not in SHARED:
        raise InputError(f"{where} was not made by slmtune: its {MANIFEST} belongs to another program")
    kind, names = SHARED[manifest["kind"]], list(manifest["files"])
    if unsafe := [name for name in names if not _is_safe_name(name)]:
        raise ArtifactError(f"{where} lists a file that pull refuses: {unsafe[0]!r}. Nothing was kept")
    if missing := [name for name in names if name not in remote]:
        raise ArtifactError(f"{where} is damaged: {missing[0]} is missing. Its owner can push it again")
    if CARD in remote:
        names.append(CARD)
    log.info("Downloading %d files of %s.", len(names) + 1, repo.id)
    for name in names:
        repo.download(name, commit, folder)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # bookkeeping of the client
    return kind


def _is_safe_name(name: object) -> bool:
    """Whether a file may be written under this name: inside the folder, visible, and in a format that runs no code."""
    if not isinstance(name, str) or set(name) & set("\\:\0"):
        return False
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)  # `..` as well
    return bool(path.parts) and not path.is_absolute() and not hidden and is_shareable(name)


def _verify(kind: type[Artifact], folder: Path, where: str) -> Artifact:
    try:
        return kind.open(folder)
    except SlmtuneError as error:
        problem = str(error).split(". Make it again")[0].replace(str(folder), where)
        raise ArtifactError(f"{problem}. Nothing was kept; its owner can push it again") from None
