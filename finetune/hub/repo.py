"""A repository on the Hub, as one user sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import DatasetInfo, HfApi, ModelInfo
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, not in __all__

from finetune.artifacts import Adapter, Artifact, Corpus, Export, Model
from finetune.errors import InputError

CARD = "README.md"
SHARED: dict[str, type[Artifact]] = {kind.kind: kind for kind in (Adapter, Model, Export, Corpus)}


@dataclass(frozen=True)
class Repo:
    """A repository on the Hub, as one user sees it."""

    api: HfApi
    id: str
    type: str  # "model" or "dataset"

    @property
    def url(self) -> str:
        """The address of its page."""
        return f"{self.api.endpoint}/{'datasets/' if self.type == 'dataset' else ''}{self.id}"

    def info(self, revision: str | None = None) -> ModelInfo | DatasetInfo:
        """Visibility and commit."""
        if self.type == "dataset":
            return self.api.dataset_info(self.id, revision=revision)
        return self.api.model_info(self.id, revision=revision)

    def files(self, commit: str) -> dict[str, RepoFile]:
        """The files of a commit by name."""
        tree = self.api.list_repo_tree(self.id, repo_type=self.type, revision=commit, recursive=True)
        return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}

    def download(self, name: str, commit: str, folder: Path | None = None) -> Path:
        """Download one file of a commit to `folder`, or to the client's cache."""
        return Path(self.api.hf_hub_download(self.id, name, repo_type=self.type, revision=commit, local_dir=folder))


def check_repo_id(repo_id: str) -> None:
    """Refuse an invalid repository name.

    Raises:
        InputError: says what a valid name looks like.
    """
    try:
        validate_repo_id(repo_id)
        valid = repo_id.count("/") == 1
    except ValueError:
        valid = False
    if not valid:
        raise InputError(
            f"{repo_id!r} is not a valid repository name. Write it as NAMESPACE/NAME, such as you/health-adapter"
        )
