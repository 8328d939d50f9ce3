"""Connects to Ray, and checks that all nodes have the same libraries and see the same files."""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finetune import __version__
from finetune.artifacts import library_versions
from finetune.errors import ClusterError, InputError

# What decides which rows come out; Ray itself compares its own version and that of Python.
LIBRARIES = (
    "datasets",
    "ftfy",
    "lxml",
    "mammoth",
    "numpy",
    "py3langid",
    "pyarrow",
    "pypdfium2",
    "spacy",
    "trafilatura",
)
REACHABLE = 5  # seconds that a node has to accept a connection
ANSWER = 300  # seconds that a node has to start a process, to import slmtune and to answer: a busy one takes many
INSTALL = "pip install 'slmtune[ray]'"
START_HINT = "Try again when the machine has less to do, or use --engine local"
CONNECT_HINT = "Run this command on a node of the cluster, with the versions of Python and Ray that it was started with"


@contextmanager
def connect(address: str | None, workers: int) -> Iterator[int]:
    """Connect to the cluster at `address` or RAY_ADDRESS, or start Ray here; yields the number of cores it has for tasks.

    A Ray that the calling program has started already is used, and left running.

    Raises:
        InputError: Ray is not installed, or the address is one of Ray Client.
        ClusterError: there is no cluster at the address, or it runs other versions of Ray and Python.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address != "local":
        _check_address(address)
    ray = _import_ray(alone=address == "local")
    if ray.is_initialized():
        yield _cores(ray)
        return
    # Blocks of text that do not fit in memory go to Ray's folder, which others could read; its sockets need a short name.
    with TemporaryDirectory(prefix="slmtune-ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        try:
            with _own_signals():
                ray.init(**_settings(address, workers, folder))
        except Exception as error:  # Ray raises bare ones, too
            reason = str(error).strip().split("\n")[0].rstrip(".")
            if address == "local":
                raise ClusterError(f"Ray cannot start on this machine: {reason}. {START_HINT}") from None
            raise ClusterError(f"Ray at {address} cannot be used: {reason}. {CONNECT_HINT}") from None
        try:
            yield _cores(ray)
        finally:
            ray.shutdown()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Leave it to this program what Ctrl-C and SIGTERM do: Ray handles them as a crash."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # else it was not set from Python
                signal.signal(number, handler)


def _cores(ray: Any) -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _import_ray(*, alone: bool) -> Any:
    """Ray without reports to its makers and, if it is `alone` on this machine, on the loopback interface only."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if alone:
        # With 0, Ray stays on the loopback interface, which is its default on Windows and macOS only: hence the name.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError(f"--engine ray needs libraries that are not installed. Install them with: {INSTALL}") from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return ray


def _settings(address: str, workers: int, folder: str) -> dict[str, Any]:
    quiet = {"log_to_driver": False, "configure_logging": False}
    if address != "local":
        return {"address": address, **quiet}
    alone = {"num_cpus": workers, "include_dashboard": False, "_temp_dir": folder}
    return {"address": address, **quiet, **alone, "_system_config": {"worker_niceness": 0}}


def _check_address(address: str) -> None:
    """Find out in seconds what Ray would find out in minutes."""
    if address.startswith("ray://"):
        raise InputError(
            f"--ray-address {address} is one of Ray Client, which has no Ray Data. Run the command on a node of the cluster, "
            "for example with ray job submit, and give HOST:PORT of the head node, or auto"
        )
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal():
        raise InputError(
            f"--ray-address {address} is not an address. Write HOST:PORT, or auto on a node of the cluster"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACHABLE).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ClusterError(
            f"There is no Ray cluster at {address} ({reason}). Check the address and that the cluster runs: ray status"
        ) from None


@dataclass(frozen=True)
class NodeReport:
    """What a node has and sees: its versions, and the paths that are not there as on the asking machine."""

    node: str
    versions: Mapping[str, str]
    unseen: Sequence[str]


def check_nodes(folder: Path, files: Sequence[Path]) -> None:
    """Make sure that every node has the versions of this machine, sees the files, and shares the folder with it.

    Raises:
        ClusterError: names the node, and what differs there.
    """
    import ray

    token, probe = uuid.uuid4().hex, folder / "probe.tmp"
    probe.write_text(token, "utf-8")
    sizes = {str(path.absolute()): path.stat().st_size for path in files}
    nodes = {node["NodeID"]: str(node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"]}
    try:
        for report in _ask(nodes, str(probe.absolute()), token, sizes):
            _check_versions(report)
            written = Path(f"{probe}.{report.node}.tmp")
            if report.unseen or not written.is_file():
                raise ClusterError(
                    f"The node {report.node} does not share {report.unseen[0] if report.unseen else folder} with this machine. "
                    "Put sources, their cache (HF_HOME, XDG_CACHE_HOME) and the corpus on storage that all nodes mount at the "
                    "same path"
                )
    finally:
        for path in folder.glob("probe.tmp*"):
            path.unlink()


def _ask(nodes: Mapping[str, str], probe: str, token: str, sizes: Mapping[str, int]) -> Iterator[NodeReport]:
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    shared = ray.put((probe, token, dict(sizes)))
    task = ray.remote(num_cpus=0)(_report)
    waiting = {
        name: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(name, shared)
        for node, name in nodes.items()
    }
    for name, answer in waiting.items():
        try:
            yield ray.get(answer, timeout=ANSWER)
        except GetTimeoutError:
            raise ClusterError(f"The node {name} does not answer. Check it with: ray status") from None
        except RayError as error:
            reason = str(getattr(error, "cause", None) or error).strip().split("\n")[-1]
            raise ClusterError(
                f"The node {name} cannot run slmtune ({reason}). Install the same version there with: {INSTALL}"
            ) from None


def _report(node: str, asked: tuple[str, str, Mapping[str, int]]) -> NodeReport:
    """Runs on the node: reads what the asking machine wrote, and writes a file of its own beside it."""
    probe, token, sizes = asked
    unseen = [path for path, size in sizes.items() if _size(path) != size]
    if _text(probe) == token:
        Path(f"{probe}.{node}.tmp").write_text(token, "utf-8")
    else:
        unseen.insert(0, str(Path(probe).parent))
    return NodeReport(node, versions_here(), unseen[:1])


def versions_here() -> dict[str, str]:
    """The versions of what decides which rows come out."""
    return {"slmtune": __version__, "python": platform.python_version(), **library_versions(LIBRARIES)}


def _check_versions(report: NodeReport) -> None:
    own = versions_here()
    names = [name for name in {**own, **report.versions} if own.get(name) != report.versions.get(name)]
    if names:
        differ = ", ".join(
            f"{name} {report.versions.get(name, 'is missing')} (here {own.get(name, 'missing')})" for name in names
        )
        raise ClusterError(
            f"The node {report.node} has other versions, with which rows may come out differently: {differ}. Install the same "
            "versions on all nodes"
        )


def _size(path: str) -> int | None:
    """The size of a file in bytes; None if it is not there."""
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _text(path: str) -> str | None:
    """The text of a file; None if it cannot be read."""
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
