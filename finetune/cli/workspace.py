"""The workspace of a domain: `runs/<domain>/`, where each stage finds the result of the one before it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import InputError

RUNS = Path("runs")


@dataclass(frozen=True)
class Workspace:
    """The folders of a domain's artifacts. `given` is what the user passed to `--domain`, if anything."""

    name: str
    root: Path
    given: str | None

    @classmethod
    def of(cls, domain: str | None, run_dir: Path | None) -> Workspace:
        """The workspace of `--domain`, or of rows without a domain.

        Raises:
            UnknownNameError: neither a domain nor a workspace of that name.
        """
        from finetune.recipe import CUSTOM_DOMAIN, load_domain  # here: `slmtune --help` imports this module

        runs = run_dir or RUNS
        if domain is None:
            return cls(CUSTOM_DOMAIN, runs / CUSTOM_DOMAIN, None)
        if Path(domain).name == domain and (runs / domain).is_dir():
            return cls(domain, runs / domain, domain)
        name = load_domain(domain).name
        return cls(name, runs / name, domain)

    @classmethod
    def named(cls, name: str, run_dir: Path | None) -> Workspace:
        """A workspace without a recipe."""
        return cls(name, (run_dir or RUNS) / name, name)

    @property
    def corpus(self) -> Path:
        """The folder of the corpus."""
        return self.root / "corpus"

    @property
    def adapter(self) -> Path:
        """The folder of the adapter."""
        return self.root / "adapter"

    @property
    def sweep(self) -> Path:
        """The folder of the sweep."""
        return self.root / "sweep"

    @property
    def eval(self) -> Path:
        """The folder of the eval report."""
        return self.root / "eval"

    @property
    def audit(self) -> Path:
        """The folder of the audit report."""
        return self.root / "audit"

    @property
    def model(self) -> Path:
        """The folder of the merged model."""
        return self.root / "model"

    @property
    def export(self) -> Path:
        """The folder of the exports, one per format."""
        return self.root / "export"

    def command(self, stage: str, artifact: Path | None = None, *, corpus: Path | str | None = None) -> str:
        """The command that runs a stage in this workspace, for hints to the user.

        Args:
            artifact: the adapter or model that it takes, named if it is not in this workspace.
            corpus: the corpus that it reads, named if it is not in this workspace.
        """
        if self.given is None and stage == "prepare":
            return "slmtune prepare --source FILE"
        words = ["slmtune", stage]
        words += [str(artifact)] if artifact not in (None, self.adapter, self.model) else []
        words += ["--domain", self.given] if self.given else []
        words += ["--run-dir", str(self.root.parent)] if self.root.parent != RUNS else []
        words += ["--corpus", str(corpus)] if corpus not in (None, self.corpus) else []
        return shlex.join(words)


def served_artifact(workspace: Workspace) -> Path:
    """The artifact of a workspace that `serve` and `chat` use: the adapter, else the merged model.

    Raises:
        InputError: neither exists; names the command.
    """
    from finetune.artifacts import read_manifest

    for path in (workspace.adapter, workspace.model):
        if read_manifest(path) is not None:
            return path
    raise InputError(f"There is no adapter at {workspace.adapter}. Make it with: {workspace.command('train')}")
