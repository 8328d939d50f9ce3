"""Opens the engine that a request asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from finetune.prepare.engines.engine import Engine
from finetune.prepare.engines.local import LocalEngine
from finetune.prepare.request import PrepareRequest

SMALL = 2 * 2**20  # bytes: reading less takes less time than starting processes


@contextmanager
def open_engine(request: PrepareRequest, files: Sequence[Path], folder: Path) -> Iterator[Engine]:
    """The engine for these files, whose results go to `folder`; a cluster is checked before anything is sent there.

    Raises:
        InputError: Ray is not installed.
        ClusterError: the cluster cannot be reached, or its nodes differ in what they have or see.
    """
    if request.engine == "local":
        yield LocalEngine(request.workers if sum(path.stat().st_size for path in files) > SMALL else 1)
        return
    from finetune.prepare.engines.cluster import check_nodes, connect
    from finetune.prepare.engines.on_ray import RayEngine

    with connect(request.ray_address, request.workers) as cores:
        check_nodes(folder, files)
        yield RayEngine(cores)
