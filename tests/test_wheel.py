"""What is published works: the sdist, the wheel built from it, and that wheel in a clean environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOMAINS = sorted(path.parent.name for path in ROOT.glob("datasets/*/recipe.yaml"))
ADAPTERS = sorted(path.stem for path in ROOT.glob("adapters/*.yaml"))

# Runs in the clean environment: reads every recipe and every file that a recipe names.
LOAD_EVERYTHING = """
import json, finetune
from finetune.recipe import AdapterRecipe, domain_names, load_adapter_recipe, load_domain, recipes_folder
domains = [load_domain(name) for name in domain_names()]
for domain in domains:
    assert all(domain.prompt_text(task).strip() for task in domain.recipe.tasks), domain.name
    for source in (*domain.recipe.sources, *domain.recipe.sample):
        assert source.is_remote or any(domain.folder.glob(source.uri)), (domain.name, source.uri)
        assert source.test_ids is None or (domain.folder / source.test_ids).is_file(), (domain.name, source.test_ids)
adapters = sorted(path.stem for path in (recipes_folder() / "adapters").glob("*.yaml"))
assert all(isinstance(load_adapter_recipe(name), AdapterRecipe) for name in adapters)
print(json.dumps({"package": finetune.__file__, "domains": [domain.name for domain in domains], "adapters": adapters}))
"""


@dataclass(frozen=True)
class Installed:
    """An sdist and a wheel, and an environment in which the wheel is installed."""

    sdist: Path
    wheel: Path
    environment: Path
    elsewhere: Path

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment in a folder that is not a checkout, and return its standard output."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [str(self.environment / "bin" / program), *arguments]
        done = subprocess.run(command, cwd=self.elsewhere, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build as for a release (sdist, then the wheel from it) and install; libraries come from this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    install = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install"]
    subprocess.run([*install, "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    # It is appended to sys.path, and its .pth files (such as that of an editable slmtune) are not followed.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return Installed(sdist, wheel, environment, elsewhere)


@pytest.fixture(scope="module")
def loaded(installed: Installed) -> dict[str, Any]:
    """The facts that the installed package prints after reading every recipe."""
    facts: dict[str, Any] = json.loads(installed.run("python", "-c", LOAD_EVERYTHING))
    return facts


@pytest.mark.slow
def test_wheel_is_what_runs(installed: Installed, loaded: dict[str, Any]) -> None:
    assert Path(loaded["package"]).is_relative_to(installed.environment)


@pytest.mark.slow
def test_wheel_loads_every_recipe_of_the_checkout(loaded: dict[str, Any]) -> None:
    assert len(DOMAINS) >= 2
    assert (loaded["domains"], loaded["adapters"]) == (DOMAINS, ADAPTERS)


@pytest.mark.slow
def test_installed_command_shows_its_help(installed: Installed) -> None:
    assert "prepare" in installed.run("slmtune", "--help")


@pytest.mark.slow
def test_installed_command_lists_the_domains(installed: Installed) -> None:
    listed = json.loads(installed.run("slmtune", "domains", "--json"))
    assert all(name in json.dumps(listed) for name in DOMAINS)


@pytest.mark.slow
def test_wheel_installs_one_package(installed: Installed) -> None:
    """A top-level `datasets` would overwrite Hugging Face's library."""
    top = {name.split("/")[0] for name in zipfile.ZipFile(installed.wheel).namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"finetune"}


@pytest.mark.slow
def test_sdist_can_be_tested(installed: Installed) -> None:
    with tarfile.open(installed.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    names_needed = {
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "Makefile",
        "constraints.txt",
        "tests/conftest.py",
        "mkdocs.yml",
    }
    recipes = {f"datasets/{name}/recipe.yaml" for name in DOMAINS} | {f"adapters/{name}.yaml" for name in ADAPTERS}
    assert names >= names_needed | recipes
    assert not [name for name in names if name.startswith("docs/images")]
