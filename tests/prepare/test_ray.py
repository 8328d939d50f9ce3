"""prepare --engine ray: on a Ray of two processes, the corpus has the bytes that the local engine writes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from finetune.errors import ClusterError, InputError, RecordError
from finetune.prepare import PrepareRequest, PrepareResult, prepare
from finetune.prepare.engines import cluster, on_ray
from finetune.prepare.engines.cluster import check_nodes, connect
from finetune.prepare.engines.on_ray import RayEngine
from finetune.prepare.request import Progress

from .conftest import write_jsonl
from .test_pipeline import files_of, texts

# Ray Data reads its own settings when it starts, of which it warns.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`:DeprecationWarning:ray"),
]


@pytest.fixture(scope="module")
def ray() -> Iterator[int]:
    """Ray with two processes, started once; yields the number of cores it says it has."""
    ended = signal.getsignal(signal.SIGTERM)
    with ExitStack() as stack:
        try:
            cores = stack.enter_context(connect("local", 2))
        except ClusterError:  # Ray gives its processes half a minute to start, which is short beside other tests
            cores = stack.enter_context(connect("local", 2))
        assert signal.getsignal(signal.SIGTERM) == ended  # Ray's own would end the command with another exit code
        yield cores


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Rows in several blocks with near-duplicates, small files, and documents."""
    folder = tmp_path_factory.mktemp("sources")
    write_jsonl(folder / "big.jsonl", texts(2_500))
    for number in range(3):
        write_jsonl(folder / f"small-{number}.jsonl", texts(20, seed=number))
        (folder / f"notes-{number}.md").write_text(f"# Title {number}\n\nA paragraph about number {number}.\n", "utf-8")
    return tuple(map(str, sorted(folder.iterdir())))


@pytest.fixture(scope="module")
def whole(sources: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> PrepareResult:
    """What the local engine makes of them."""
    return prepare(PrepareRequest(tmp_path_factory.mktemp("local") / "corpus", sources=sources))


def on_two(out: Path, sources: tuple[str, ...], on_progress: Progress | None = None, **options: Any) -> PrepareResult:
    request = PrepareRequest(out, sources=sources, engine="ray", workers=2, **options)
    return prepare(request, on_progress) if on_progress else prepare(request)


def test_the_corpus_is_that_of_the_local_engine(
    ray: int, whole: PrepareResult, sources: tuple[str, ...], tmp_path: Path
) -> None:
    assert ray == 2
    stages: list[tuple[str, int, int]] = []
    made = on_two(tmp_path / "corpus", sources, lambda stage, done, total, unit: stages.append((stage, done, total)))
    assert made.fingerprint == whole.fingerprint
    assert files_of(made.corpus) == files_of(whole.corpus)
    assert made.dropped["near_duplicate"] > 0
    assert [done for stage, done, _ in stages if stage == "read"][-1] == sum(map(os.path.getsize, sources))
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_the_corpus_of_a_domain_is_that_of_the_local_engine(ray: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"domain": "finance", "sample": True, "workers": 2}
    here = prepare(PrepareRequest(tmp_path / "here", **options))
    there = prepare(PrepareRequest(tmp_path / "there", engine="ray", **options))
    assert there.fingerprint == here.fingerprint
    assert there.evals == here.evals != []


def test_killed_workers_change_nothing(
    ray: int, whole: PrepareResult, sources: tuple[str, ...], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill(stage: str, *_: object) -> None:
        if stage == "read" and not killed:
            workers = [process for process in psutil.Process().children(recursive=True) if is_task(process)]
            for process in workers:
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)

    made = on_two(tmp_path / "corpus", sources, kill)
    assert killed
    assert files_of(made.corpus) == files_of(whole.corpus)


def is_task(process: psutil.Process) -> bool:
    """Whether a process is a worker of Ray that runs a task or waits for one."""
    try:
        name: str = process.name()
    except psutil.NoSuchProcess:
        return False
    return name.startswith(("ray::Map", "ray::IDLE"))  # others serve the whole node


def test_a_bad_row_is_the_error_that_the_local_engine_raises(ray: int, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "Fine."}\n' * 1_200 + '{"text": \n', "utf-8")
    errors = []
    for engine in ("local", "ray"):
        with pytest.raises(RecordError) as caught:
            prepare(PrepareRequest(tmp_path / engine, sources=(str(source),), engine=engine))
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    assert f"{source}:1201" in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_source_with_a_relative_path_is_found(ray: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", texts(10))
    monkeypatch.chdir(tmp_path)
    assert sum(on_two(Path("corpus"), ("rows.jsonl",)).splits.values()) > 0


def test_a_row_that_kills_every_worker_ends_the_run(ray: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "RETRIES", 1)
    with pytest.raises(ClusterError, match="died") as caught:
        list(RayEngine(2).map(os._exit, [7]))
    assert "\n" not in str(caught.value)


def test_storage_that_only_this_process_sees_is_refused(
    ray: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    check_nodes(tmp_path / "work", [])
    monkeypatch.chdir(tmp_path)
    own = Path("/proc/self/cwd/work")  # another folder in every process that works elsewhere
    with pytest.raises(ClusterError, match=f"does not share {own}"):
        check_nodes(own, [])
    source = tmp_path / "rows.jsonl"
    source.write_text("{}\n", "utf-8")
    with pytest.raises(ClusterError, match=r"does not share /proc/self/cwd/rows\.jsonl"):
        check_nodes(tmp_path / "work", [source, Path("/proc/self/cwd/rows.jsonl")])
    assert not list((tmp_path / "work").iterdir())


def test_a_node_with_other_versions_is_refused(ray: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster, "__version__", "99.0")  # here, not in the processes of Ray
    with pytest.raises(ClusterError, match=r"The node 127\.0\.0\.1 has other versions.*slmtune .* \(here 99\.0\)"):
        check_nodes(tmp_path, [])


def test_a_cluster_that_is_not_there_is_an_error_of_one_paragraph(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", texts(5))
    with pytest.raises(ClusterError, match=r"There is no Ray cluster at 127\.0\.0\.1:9 ") as caught:
        on_two(tmp_path / "corpus", (str(source),), ray_address="127.0.0.1:9")
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("address", "said"), [("ray://head:10001", "ray job submit"), ("head", "HOST:PORT"), ("head:many", "HOST:PORT")]
)
def test_an_address_that_cannot_be_one_says_how_to_write_it(address: str, said: str) -> None:
    with pytest.raises(InputError, match=said), connect(address, 1):
        pass


def test_an_address_without_the_engine_is_refused(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", texts(5))
    with pytest.raises(InputError, match="--engine ray"):
        prepare(PrepareRequest(tmp_path / "corpus", sources=(str(source),), ray_address="head:6379"))


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'slmtune\[ray\]'"), connect(None, 1):
        pass
