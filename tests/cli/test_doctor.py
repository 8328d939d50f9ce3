"""The doctor, on a machine in order and on one that is as broken as a test can make it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune import machine
from finetune.cli.doctor import Check, run_checks
from finetune.machine import format_bytes
from finetune.plan import Device, plan
from finetune.recipe import AdapterRecipe

from ..command import ROOT, python, run

PROGRAM = """
import dataclasses, json, sys
from pathlib import Path
from finetune.cli.doctor import run_checks
report = run_checks(workspace=Path(sys.argv[1]), offline=sys.argv[2] == "offline")
print(json.dumps(dataclasses.asdict(report)))
"""


def examine(workspace: Path, mode: str, **environment: str) -> dict[str, Any]:
    """Run the doctor in a process of its own, in which the Hub's client reads its settings."""
    variables = os.environ | {"CUDA_VISIBLE_DEVICES": ""} | environment
    done = python("-c", PROGRAM, workspace, mode, cwd=ROOT, env=variables)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    return {"ok": report["ok"], **{check["name"]: check for check in report["checks"]}}


@pytest.fixture(scope="module")
def in_order(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A machine without GPU and network, with nothing cached."""
    folder = tmp_path_factory.mktemp("in-order")
    caches = {"XDG_CACHE_HOME": str(folder / "cache"), "HF_HOME": str(folder / "hf")}
    return examine(folder / "runs", "offline", **caches)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A machine where no folder can be created, libraries are out of range, and the Hub does not answer."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "file").write_text("not a folder", "utf-8")
    claim(folder / "site", "slmtune", "0", "peft>=0.21.2,<1", "click>=8", "library-that-is-missing>=7")
    claim(folder / "site", "peft", "0.1.0")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        return examine(
            folder / "file" / "runs",
            "online",
            PYTHONPATH=str(folder / "site"),
            HF_ENDPOINT=f"http://127.0.0.1:{closed.getsockname()[1]}",
            HF_HOME=str(folder / "file" / "hf"),
            XDG_CACHE_HOME=str(folder / "cache"),
            HF_HUB_OFFLINE="0",
        )


def claim(site: Path, name: str, version: str, *requires: str) -> None:
    """Metadata of an installed distribution, found before the real one."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", "Requires-Python: >=3.11"]
    (folder / "METADATA").write_text(
        "\n".join([*lines, *(f"Requires-Dist: {one}" for one in requires)]) + "\n", "utf-8"
    )


@pytest.mark.parametrize("name", ["python", "libraries", "torch", "cuda", "bitsandbytes", "disk", "workspace", "cache"])
def test_machine_in_order_passes(in_order: dict[str, Any], name: str) -> None:
    assert in_order[name]["ok"], in_order[name]


def test_no_gpu_is_not_a_failure(in_order: dict[str, Any]) -> None:
    assert "training runs on the CPU" in in_order["cuda"]["detail"]


def test_bitsandbytes_is_tried_and_not_only_imported(in_order: dict[str, Any]) -> None:
    assert "quantises on cpu" in in_order["bitsandbytes"]["detail"]


def test_hub_is_not_contacted_offline(in_order: dict[str, Any]) -> None:
    assert in_order["hub"]["ok"]
    assert "offline" in in_order["hub"]["detail"]


def test_offline_without_base_model_is_not_ready(in_order: dict[str, Any]) -> None:
    assert not in_order["base-model"]["ok"]
    assert not in_order["ok"]


def test_checks_leave_nothing_behind(in_order: dict[str, Any]) -> None:
    workspace = Path(in_order["workspace"]["detail"].removesuffix(" can be written"))
    assert not list(workspace.parent.iterdir())


def test_missing_library_is_named(broken: dict[str, Any]) -> None:
    assert "library-that-is-missing is missing" in broken["libraries"]["detail"]


def test_library_out_of_range_is_named_with_its_version(broken: dict[str, Any]) -> None:
    assert "peft 0.1.0 is not" in broken["libraries"]["detail"]


def test_fix_installs_only_what_is_wrong(broken: dict[str, Any]) -> None:
    fix = broken["libraries"]["fix"]
    assert "pip install" in fix
    assert "library-that-is-missing>=7" in fix
    assert "peft" in fix
    assert "click" not in fix


def test_unwritable_workspace_fails(broken: dict[str, Any]) -> None:
    assert not broken["workspace"]["ok"]


def test_unwritable_cache_fails(broken: dict[str, Any]) -> None:
    assert not broken["cache"]["ok"]
    assert "HF_HOME" in broken["cache"]["fix"]


def test_unreachable_hub_is_a_warning_with_a_way_out(broken: dict[str, Any]) -> None:
    hub = broken["hub"]
    assert (hub["ok"], hub["required"]) == (False, False)
    assert "127.0.0.1" in hub["detail"]
    assert "--offline" in hub["fix"]


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Check]:
    """The check of memory in a container with a limit in bytes, all of which is free."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
    (tmp_path / "own").write_text("0::/\n", "utf-8")
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup" / "memory.current").write_text("0\n", "utf-8")

    def check(limit: int) -> Check:
        (tmp_path / "cgroup" / "memory.max").write_text(f"{limit}\n", "utf-8")
        checks = run_checks(workspace=tmp_path / "runs", offline=True).checks
        return next(check for check in checks if check.name == "memory")

    return check


def test_memory_is_that_of_the_container(limited: Callable[[int], Check]) -> None:
    assert limited(100 * 2**20).detail.startswith("100 MiB of 100 MiB are free")


def test_memory_needed_is_that_of_the_plan(limited: Callable[[int], Check]) -> None:
    assert format_bytes(plan(AdapterRecipe()).peak_bytes) in limited(2**30).detail


def test_little_memory_gets_the_suggestion_of_the_plan(limited: Callable[[int], Check]) -> None:
    free = 3 * 2**30
    check = limited(free)
    suggestion = plan(AdapterRecipe(), device=Device("cpu", free)).suggestion
    assert (check.ok, check.required) == (False, False)
    assert suggestion
    assert suggestion.options in str(check.fix)


def test_memory_in_which_nothing_fits_needs_a_larger_machine(limited: Callable[[int], Check]) -> None:
    assert "larger machine" in str(limited(100 * 2**20).fix)


def test_every_failure_says_how_to_fix_it(broken: dict[str, Any]) -> None:
    checks = [value for key, value in broken.items() if key != "ok"]
    assert all(bool(check["fix"]) != check["ok"] for check in checks)


def test_failure_makes_the_machine_not_ready(broken: dict[str, Any]) -> None:
    assert not broken["ok"]


def test_importing_the_doctor_loads_no_torch() -> None:
    program = "import sys, finetune.cli.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_command_prints_the_report_and_ends_with_its_verdict(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", "utf-8")
    done = run("doctor", "--offline", "--json", "--run-dir", tmp_path / "file", cwd=tmp_path)
    report = json.loads(done.stdout)
    failed = {check["name"] for check in report["checks"] if not check["ok"] and check["required"]}
    assert "workspace" in failed
    assert (report["ok"], done.returncode) == (False, 1)
