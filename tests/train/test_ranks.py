"""A training in two processes is the training in one, and ends in an orderly way if one of them does not."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from finetune.errors import InputError
from finetune.launcher import gpus_of, take_place
from finetune.machine import count_cores

from ..command import Command
from .kills import checkpoints, newest, training
from .processes import assert_same, fork_ranks, journal

# Steps of 8 of 30 rows: the last one of an epoch has fewer, and nothing is random but the order of the rows.
RECIPE: dict[str, object] = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "lora_dropout": 0,
    "max_steps": 8,
    "save_steps": 3,
    "eval_steps": 3,
    "logging_steps": 1,
}
COUNTED = ("tokens", "supervised_tokens", "steps", "epochs", "adapter_step", "metric")


def run(
    model: Path,
    corpus: Path,
    folder: Path,
    *arguments: object,
    before: Callable[[], None] = fork_ranks,
    **recipe: object,
) -> Command:
    folder.mkdir(exist_ok=True)
    return Command(*training(model, corpus, **RECIPE | recipe), *arguments, cwd=folder, before=before)


@pytest.fixture(scope="module")
def one(tiny_model: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the adapter of an undisturbed training in one process."""
    folder = tmp_path_factory.mktemp("one")
    done = run(tiny_model, tiny_corpus, folder)
    assert done.wait() == 0, done.stderr
    return folder


def test_two_processes_train_like_one(one: Path, tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    done = run(tiny_model, tiny_corpus, tmp_path, "--num-processes", 2)
    assert done.wait() == 0, done.stderr
    assert_same(tmp_path, one)
    results = [json.loads((each / "adapter/manifest.json").read_text("utf-8"))["result"] for each in (tmp_path, one)]
    assert {name: results[0][name] for name in COUNTED} == {name: results[1][name] for name in COUNTED}
    assert results[0]["peak_memory_bytes"] > 1.5 * results[1]["peak_memory_bytes"]
    assert done.result["adapter"] == "adapter"
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_noise_of_their_own_leaves_all_processes_the_same_rows(
    one: Path, tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    """Were they to go through the rows in different orders, each step would have other tokens."""
    noisy = run(tiny_model, tiny_corpus, tmp_path, "--num-processes", 2, lora_dropout=0.5, max_steps=6, eval_steps=0)
    assert noisy.wait() == 0, noisy.stderr
    tokens = [[line["tokens"] for line in journal(each) if "loss" in line] for each in (tmp_path, one)]
    assert tokens[0] == tokens[1][:6]


def test_one_process_begins_and_two_resume(one: Path, tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    begun = run(tiny_model, tiny_corpus, tmp_path)
    assert begun.until(lambda: checkpoints(tmp_path)), begun.stderr
    begun.kill()
    resumed = run(tiny_model, tiny_corpus, tmp_path, "--num-processes", 2, "--resume")
    assert resumed.wait() == 0, resumed.stderr
    assert "processes has changed from 1 to 2" in resumed.stderr
    assert resumed.result["resumed_from"]
    assert_same(tmp_path, one)


def test_killed_process_ends_the_run_which_one_process_resumes(
    one: Path, tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    begun = run(tiny_model, tiny_corpus, tmp_path, "--num-processes", 2)
    assert begun.until(lambda: checkpoints(tmp_path)), begun.stderr
    [other] = psutil.Process(begun.pid).children()
    other.kill()
    assert begun.wait() == 1, begun.stderr
    error = begun.stderr.strip().splitlines()[-1]
    assert f"Process 1 of the training (process id {other.pid}) was killed by SIGKILL" in error
    assert f"The last checkpoint is step {newest(tmp_path)}" in error
    assert "Resume with: slmtune train" in error
    assert not (tmp_path / "adapter").exists()

    resumed = run(tiny_model, tiny_corpus, tmp_path, "--resume")
    assert resumed.wait() == 0, resumed.stderr
    assert_same(tmp_path, one)


def test_killed_first_process_leaves_no_other(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    begun = run(tiny_model, tiny_corpus, tmp_path, "--num-processes", 2, max_steps=1000)
    assert begun.until_step(1), begun.stderr
    [other] = psutil.Process(begun.pid).children()
    begun.kill()
    assert other.wait(60) is None or not other.is_running()


def test_signal_to_any_process_stops_all_with_a_checkpoint(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    begun = run(tiny_model, tiny_corpus, tmp_path, "--num-processes", 2, max_steps=1000)
    assert begun.until_step(1), begun.stderr
    [other] = psutil.Process(begun.pid).children()
    other.terminate()
    assert begun.wait() == 128 + signal.SIGTERM, begun.stderr
    assert "Stopped by SIGTERM after step" in begun.stderr
    assert checkpoints(tmp_path)


def test_more_processes_than_cores_are_refused(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    done = run(tiny_model, tiny_corpus, tmp_path, "--num-processes", count_cores() + 1)
    assert done.wait() == 2
    assert f"Use at most --num-processes {count_cores()}" in done.stderr
    assert not list(tmp_path.iterdir())


def test_more_processes_than_rows_of_a_step_are_refused(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    batch: dict[str, Any] = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    done = run(tiny_model, tiny_corpus, tmp_path, "--num-processes", 2, **batch)
    assert done.wait() == 2
    assert "2 processes are more than the 1 rows of an optimizer step" in done.stderr


class TestLauncher:
    """Processes that torchrun or accelerate has started."""

    @pytest.fixture
    def launch(
        self, tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., list[Command]]:
        """Starts two processes, with the variables of torchrun; `other` runs first in the second one."""

        def launch(*arguments: object, other: Callable[[], None] = fork_ranks) -> list[Command]:
            with socket.create_server(("127.0.0.1", 0)) as server:
                port = str(server.getsockname()[1])
            common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            commands = []
            for rank, before in ((0, fork_ranks), (1, other)):
                for name, value in {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}.items():
                    monkeypatch.setenv(name, value)
                commands.append(run(tiny_model, tiny_corpus, tmp_path, *arguments, before=before))
            return commands

        return launch

    def test_two_processes_train_like_one(
        self, one: Path, launch: Callable[..., list[Command]], tmp_path: Path
    ) -> None:
        first, second = launch()
        assert (first.wait(), second.wait()) == (0, 0), first.stderr + second.stderr
        assert_same(tmp_path, one)
        assert first.result["steps"] == RECIPE["max_steps"]
        assert second.stdout == ""
        assert "training: " not in second.stderr

    def test_other_library_versions_are_refused(self, launch: Callable[..., list[Command]], tmp_path: Path) -> None:
        first, second = launch(other=other_peft)
        assert (first.wait(), second.wait()) == (2, 2), first.stderr + second.stderr
        assert "Process 1 of the training has peft 0.1" in first.stderr
        assert not (tmp_path / "adapter").exists()

    def test_another_number_of_processes_is_refused(self, launch: Callable[..., list[Command]]) -> None:
        for command in launch("--num-processes", 3):
            assert command.wait() == 2
            assert "--num-processes 3 does not fit the launcher, which has started 2" in command.stderr

    def test_accelerate_without_a_configuration_is_explained(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
        assert take_place() is None
        with pytest.raises(InputError, match="accelerate launch starts one process unless it is configured"):
            take_place(2)

    @pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
    def test_sharded_base_models_are_refused(self, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        monkeypatch.setenv(variable, "true")
        with pytest.raises(InputError, match="keeps a whole one in each"):
            take_place()

    @pytest.mark.parametrize(("visible", "gpu"), [(None, "1"), ("4,7", "7"), ("4", None), ("", None)])
    def test_each_process_sees_a_gpu_of_its_own(
        self, monkeypatch: pytest.MonkeyPatch, visible: str | None, gpu: str | None
    ) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert gpus_of(1, 2) == gpu


def other_peft() -> None:
    """Pretend that another version of a library is installed."""
    import finetune.train.ranks.agree as agree
    from finetune.artifacts import library_versions

    versions = library_versions()
    vars(agree)["library_versions"] = lambda: {**versions, "peft": "0.1"}
