"""The templates of `examples/cluster` are what their tools understand, and start commands that slmtune understands."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from types import ModuleType
from typing import Any

import click
import pytest
import yaml

from finetune.cli.commands import cli

from .command import ROOT

FOLDER = ROOT / "examples/cluster"
SKYPILOT: dict[str, Any] = yaml.safe_load((FOLDER / "skypilot.yaml").read_text("utf-8"))
SLURM = (FOLDER / "slurm.sh").read_text("utf-8")
# Of a task: https://docs.skypilot.co/en/latest/reference/yaml-spec.html
FIELDS = {"name", "workdir", "num_nodes", "resources", "file_mounts", "envs", "setup", "run"}


def template(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_understood(script: str) -> None:
    """What follows `-m finetune` is a command of slmtune with options that it has."""
    [words] = re.findall(r"-m finetune ([^']*)", script.replace("\\\n", " "))
    name, *arguments = [re.sub(r"\$\w+", "value", word) for word in shlex.split(words)]
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    command.make_context(name, arguments)


@pytest.mark.parametrize("script", [SLURM, SKYPILOT["setup"], SKYPILOT["run"]])
def test_bash_reads_the_scripts(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("script", [SLURM, SKYPILOT["run"]])
def test_slmtune_reads_the_commands(script: str) -> None:
    assert_understood(script)


def test_skypilot_has_the_fields_of_a_task() -> None:
    assert SKYPILOT.keys() <= FIELDS
    assert SKYPILOT["num_nodes"] == 2
    assert SKYPILOT["file_mounts"]["/shared"]["mode"] == "MOUNT"


def test_slurm_starts_one_torchrun_per_machine() -> None:
    settings = dict(
        line.removeprefix("#SBATCH --").split("=")
        for line in SLURM.splitlines()
        if "#SBATCH --" in line and "=" in line
    )
    assert settings["ntasks-per-node"] == "1"
    assert settings["gpus-per-node"] == "8"


def test_ray_starts_torchrun_on_each_machine() -> None:
    command = template("ray_train").torchrun(2, 8, 1, "10.0.0.1", ["train", "--domain", "finance"])
    assert command[1:] == [
        *("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=8", "--node-rank=1", "--master-addr=10.0.0.1"),
        *("--master-port=29500", "-m", "finetune", "train", "--domain", "finance"),
    ]
    from torch.distributed.run import parse_args

    given = parse_args(command[3:])
    assert (given.module, given.training_script) == (True, "finetune")
    assert given.training_script_args == ["train", "--domain", "finance"]
