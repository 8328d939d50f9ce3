"""How much memory is free, inside a container as well, and how bytes are written."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune import machine
from finetune.machine import (
    GPU_CONTEXT,
    end_idle_threads,
    format_bytes,
    free_memory,
    peak_bytes,
    read_size,
    total_memory,
)

MIB = 2**20


def write_cgroup(folder: Path, **values: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n", "utf-8")


@pytest.fixture
def own_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a tree of cgroups without limits, in which this process is at /pod/container."""
    (tmp_path / "self").write_text("4:memory:/pod/container\n1:name=systemd:/\n0::/pod/container\n", "utf-8")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "self")
    return tmp_path / "cgroup"


def test_a_container_limits_what_is_free(own_cgroups: Path) -> None:
    write_cgroup(own_cgroups / "pod/container", memory__max=50 * MIB, memory__current=20 * MIB)
    assert free_memory() == 30 * MIB


def test_a_container_around_the_container_limits_as_well(own_cgroups: Path) -> None:
    write_cgroup(own_cgroups / "pod", memory__max=40 * MIB, memory__current=30 * MIB)
    write_cgroup(own_cgroups / "pod/container", memory__max="max", memory__current=20 * MIB)
    assert free_memory() == 10 * MIB


def test_a_container_that_sees_only_its_own_tree_is_limited(own_cgroups: Path) -> None:
    write_cgroup(own_cgroups, memory__max=50 * MIB, memory__current=20 * MIB)
    assert free_memory() == 30 * MIB


def test_page_cache_is_not_used_memory(own_cgroups: Path) -> None:
    stat = f"anon {5 * MIB}\nfile {14 * MIB}\ninactive_file {10 * MIB}\nactive_file {4 * MIB}\nshmem 0"
    write_cgroup(own_cgroups / "pod/container", memory__max=50 * MIB, memory__current=20 * MIB, memory__stat=stat)
    assert free_memory() == 44 * MIB


def test_caches_of_file_names_are_not_used_memory(own_cgroups: Path) -> None:
    stat = f"inactive_file {MIB}\nslab {9 * MIB}\nslab_reclaimable {6 * MIB}\nslab_unreclaimable {3 * MIB}"
    write_cgroup(own_cgroups / "pod/container", memory__max=50 * MIB, memory__current=20 * MIB, memory__stat=stat)
    assert free_memory() == 37 * MIB


def test_the_first_version_of_cgroups_limits_too(own_cgroups: Path) -> None:
    stat = f"inactive_file {MIB}\ntotal_inactive_file {4 * MIB}\ntotal_active_file {2 * MIB}"
    values = {"memory__limit_in_bytes": 50 * MIB, "memory__usage_in_bytes": 20 * MIB, "memory__stat": stat}
    write_cgroup(own_cgroups / "memory/pod/container", **values)
    assert free_memory() == 36 * MIB


def test_a_container_that_uses_more_than_its_limit_has_nothing_free(own_cgroups: Path) -> None:
    write_cgroup(own_cgroups / "pod/container", memory__max=50 * MIB, memory__current=51 * MIB)
    assert free_memory() == 0


def test_without_a_limit_free_memory_is_that_of_the_machine(own_cgroups: Path) -> None:
    write_cgroup(own_cgroups / "pod/container", memory__max="max", memory__current=20 * MIB)
    assert free_memory() > 60 * MIB


def test_total_memory_is_that_of_the_tightest_container(own_cgroups: Path) -> None:
    write_cgroup(own_cgroups / "pod", memory__max=40 * MIB, memory__current=30 * MIB)
    write_cgroup(own_cgroups / "pod/container", memory__max=50 * MIB, memory__current=20 * MIB)
    assert total_memory() == 40 * MIB


def test_without_a_limit_total_memory_is_that_of_the_machine(own_cgroups: Path) -> None:
    write_cgroup(own_cgroups / "pod/container", memory__max="max", memory__current=20 * MIB)
    assert total_memory() >= free_memory() > 60 * MIB


def test_peak_on_a_gpu_is_what_its_driver_would_count(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 5 * MIB)
    assert peak_bytes() == 5 * MIB + GPU_CONTEXT


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1536, "2 KiB"), (500 * MIB, "500 MiB"), (2.9 * 2**30, "2.9 GiB")]
)
def test_bytes_as_text(count: float, text: str) -> None:
    assert format_bytes(count) == text


def test_formatted_bytes_can_be_read() -> None:
    assert read_size(format_bytes(500 * MIB)) == 500 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_threads_that_computed_end_and_start_again() -> None:
    def count() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    numbers, used = torch.ones(2**20), torch.get_num_threads()
    with ThreadPoolExecutor(1) as pool:  # a thread that has not computed yet

        def run(action: Callable[..., Any], *arguments: Any) -> Any:
            return pool.submit(action, *arguments).result()

        try:
            run(torch.set_num_threads, 3)
            before = run(count)
            run(numbers.add, 1)
            assert run(count) > before
            run(end_idle_threads)
            deadline = time.monotonic() + 10
            while (left := run(count)) > before and time.monotonic() < deadline:
                time.sleep(0.01)
            assert left <= before
            assert run(numbers.add, 1).sum() == 2**21
        finally:
            torch.set_num_threads(used)
