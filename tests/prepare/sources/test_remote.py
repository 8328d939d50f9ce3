"""Data sets on the Hub, through the real client against a Hub on the loopback interface."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from finetune.artifacts import Corpus
from finetune.corpus.store import read_split

from ...command import ROOT, run
from ...hub.local_hub import Fault, LocalHub
from ..conftest import questions, write_jsonl


@dataclass
class Client:
    """A process with a cache of its own that prepares from the Hub."""

    hub: LocalHub
    folder: Path

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = self.hub.environ(self.folder / "home") | variables
        words = ("--overwrite", "--output-dir", "out", "--json", *arguments)
        return run("prepare", *words, cwd=self.folder, env=environment)

    def prepare(self, *arguments: str, **variables: str) -> dict[str, Any]:
        done = self.run(*arguments, **variables)
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    @property
    def corpus(self) -> Corpus:
        return Corpus.open(self.folder / "out")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with LocalHub() as hub:
        yield Client(hub, tmp_path)


Server = Callable[..., str]


@pytest.fixture
def serve(client: Client, tmp_path: Path) -> Server:
    """`serve("acme/qa", card, file=rows)` puts a data set on the Hub and gives its address."""

    def put(repo: str, card: str = "", *, gated: bool = False, **files: list[dict[str, Any]]) -> str:
        folder = tmp_path / "repos" / repo
        folder.mkdir(parents=True)
        (folder / "README.md").write_text(f"---\n{card}\n---\n# {repo}\n", "utf-8")
        for name, rows in files.items():
            path = folder / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".parquet":
                parquet.write_table(pa.Table.from_pylist(rows), path)
            else:
                write_jsonl(path, rows)
        client.hub.serve("dataset", repo, folder, gated=gated)
        return f"hf://datasets/{repo}"

    return put


def test_named_splits_are_kept_and_the_commit_is_recorded(client: Client, serve: Server) -> None:
    files = {
        "data__train-00000-of-00001_dot_parquet": questions(20),
        "data__test-00000-of-00001_dot_parquet": questions(5, 50),
    }
    uri = serve("acme/qa", "license: cc-by-4.0", **files)
    result = client.prepare("--source", uri)
    assert result["splits"] == {"train": 20, "validation": 0, "test": 5}
    (source,) = result["sources"]
    assert source["revision"] == client.hub.repos["dataset", "acme/qa"].head.sha
    assert (source["id"], source["uri"], source["license"]) == ("qa", uri, "cc-by-4.0")


def test_an_only_split_is_divided(client: Client, serve: Server) -> None:
    result = client.prepare("--source", serve("acme/qa", train_dot_jsonl=questions(300)))
    assert all(result["splits"].values())


def test_files_that_are_no_rows_are_counted(client: Client, serve: Server) -> None:
    uri = serve("acme/qa", train_dot_jsonl=questions(9), notes__book_dot_txt=questions(1))
    assert client.prepare("--source", uri)["unused"] == [
        {"source": "qa", "kind": "file", "name": "notes/book.txt", "count": 1}
    ]
    assert client.prepare("--source", f"{uri}:train")["splits"]["train"] > 0  # an only split, although it was named


def test_the_card_decides_which_files_are_a_configuration(client: Client, serve: Server) -> None:
    small = "- {split: train, path: a/*}\n  - {split: validation, path: [b/x.jsonl]}"
    card = f"configs:\n- config_name: small\n  data_files:\n  {small}\n- config_name: large\n  data_files: c/*\n"
    files = {
        "a__one_dot_jsonl": questions(3),
        "b__x_dot_jsonl": questions(2, 10),
        "c__two_dot_jsonl": questions(40, 20),
    }
    uri = serve("acme/qa", card, **files)
    assert client.prepare("--source", f"{uri}:small")["splits"] == {"train": 3, "validation": 2, "test": 0}
    assert sum(client.prepare("--source", f"{uri}:large")["splits"].values()) == 40
    refused = client.run("--source", uri)
    assert refused.returncode == 2
    assert "large, small" in refused.stderr
    assert "Did you mean 'small'" in client.run("--source", f"{uri}:smal").stderr


def test_a_revision_pins_the_rows(client: Client, serve: Server, tmp_path: Path) -> None:
    uri = serve("acme/qa", train_dot_jsonl=questions(3), test_dot_jsonl=questions(1, 50))
    first = client.hub.repos["dataset", "acme/qa"].head.sha
    write_jsonl(tmp_path / "new" / "train.jsonl", questions(9))
    write_jsonl(tmp_path / "new" / "test.jsonl", questions(1, 50))
    second = client.hub.serve("dataset", "acme/qa", tmp_path / "new")
    second.commits.insert(0, client.hub.repos["dataset", "acme/qa"].head)
    assert client.prepare("--source", uri)["splits"]["train"] == 9
    assert client.run("--source", f"{uri}@{first}").returncode == 2  # the Hub no longer has it
    assert client.prepare("--source", f"{uri}@{second.head.sha}")["sources"][0]["revision"] == second.head.sha


def test_what_is_cached_needs_no_network(client: Client, serve: Server) -> None:
    uri = serve("acme/qa", train_dot_jsonl=questions(20))
    online = client.prepare("--source", uri)
    before = len(client.hub.requests)
    offline = client.prepare("--source", uri, "--offline")
    assert offline["fingerprint"] == online["fingerprint"]
    assert len(client.hub.requests) == before


def test_an_unreachable_hub_is_replaced_by_the_cache(client: Client, serve: Server) -> None:
    uri = serve("acme/qa", train_dot_jsonl=questions(20))
    online = client.prepare("--source", uri)
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert client.prepare("--source", uri, **nowhere)["fingerprint"] == online["fingerprint"]
    done = client.run("--source", "hf://datasets/acme/other", **nowhere)
    assert done.returncode == 2
    assert "is not in the cache, and the Hub cannot be reached" in done.stderr


def test_what_is_not_cached_is_refused_offline(client: Client, serve: Server) -> None:
    uri = serve("acme/qa", a__train_dot_jsonl=questions(3), b__train_dot_jsonl=questions(3, 10))
    done = client.run("--source", uri, "--offline")
    assert done.returncode == 2
    assert "is not in the cache, and the network is forbidden" in done.stderr
    client.prepare("--source", f"{uri}:a")
    assert "is not in the cache" in client.run("--source", f"{uri}:b", "--offline").stderr
    assert client.hub.requests
    assert not (client.folder / "out" / "b").exists()


def test_a_busy_hub_is_asked_again(client: Client, serve: Server) -> None:
    uri = serve("acme/qa", train_dot_jsonl=questions(20))
    client.hub.faults.append(Fault(503, times=1, path="GET /.*jsonl"))
    assert sum(client.prepare("--source", uri)["splits"].values()) == 20
    assert 503 in [request.status for request in client.hub.requests]


@pytest.mark.slow
def test_a_hub_that_stays_busy_is_an_error(client: Client, serve: Server) -> None:
    uri = serve("acme/qa", train_dot_jsonl=questions(3))
    client.hub.faults.append(Fault(503, path="GET /.*jsonl"))
    done = client.run("--source", uri)
    assert done.returncode == 1
    assert "answered 503" in done.stderr


def test_missing_and_gated_data_sets_say_what_to_do(client: Client, serve: Server) -> None:
    missing = client.run("--source", "hf://datasets/acme/none")
    assert missing.returncode == 2
    assert "no data set on the Hub called 'acme/none'" in missing.stderr
    gated = client.run("--source", serve("acme/gated", gated=True, train_dot_jsonl=questions(3)))
    assert gated.returncode == 1
    assert "acme/gated is gated" in gated.stderr


def test_a_loading_script_is_not_run(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "script"
    folder.mkdir()
    (folder / "script.py").write_text("raise SystemExit('ran')", "utf-8")
    client.hub.serve("dataset", "acme/script", folder)
    done = client.run("--source", "hf://datasets/acme/script")
    assert done.returncode == 2
    assert "runs no loading scripts" in done.stderr
    assert "refs/convert/parquet" in done.stderr


def test_a_licence_against_commercial_use_must_be_accepted(client: Client, serve: Server) -> None:
    uri = serve("acme/nc", "license: cc-by-nc-sa-3.0", train_dot_jsonl=questions(20))
    done = client.run("--source", uri)
    assert done.returncode == 2
    assert "--accept-noncommercial" in done.stderr
    assert client.prepare("--source", uri, "--accept-noncommercial")["sources"][0]["license"] == "cc-by-nc-sa-3.0"


# --- the recipes' own sources, in small -------------------------------------------------------------------------------


def test_finance_takes_the_public_test_and_carves_validation(client: Client, tmp_path: Path) -> None:
    repo = "zeroshot/twitter-financial-news-sentiment"
    folder = tmp_path / "tfns"
    folder.mkdir()
    parts = {"sent_train.csv": range(300), "sent_valid.csv": range(290, 320)}
    for name, numbers in parts.items():
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            writer.writerows((f"${n} falls, https://t.co/{name}{n}", n % 3) for n in numbers)
    card = "configs:\n- config_name: default\n  data_files:\n  - {split: train, path: sent_train.csv}\n"
    (folder / "README.md").write_text(f"---\n{card}  - {{split: validation, path: sent_valid.csv}}\n---\n", "utf-8")
    client.hub.serve("dataset", repo, folder)
    result = client.prepare("--domain", "finance")
    assert result["splits"]["test"] == 30
    assert result["dropped"] == {"in_test": 10}
    assert result["splits"]["validation"] > 0
    test = read_split(client.corpus, "test")
    assert [row.label for row in test[:3]] == ["neutral", "bearish", "bullish"]  # 290 % 3 is 2


def test_health_takes_the_official_test_ids_and_drops_the_unanswered(client: Client, tmp_path: Path) -> None:
    ids = [int(line) for line in (ROOT / "datasets/health/pubmedqa-test-pmids.txt").read_text("utf-8").split()]
    numbers = [*ids, *range(1, 101)]
    rows = [
        {
            "pubid": number,
            "question": f"Does {number} help?",
            "context": {"contexts": [f"First {number}.", "Second."]},
            "final_decision": "yes",
        }
        for number in numbers
    ]
    pubmedqa = tmp_path / "pubmedqa" / "pqa_labeled" / "train-00000-of-00001.parquet"
    pubmedqa.parent.mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(rows), pubmedqa)
    client.hub.serve("dataset", "qiaojin/PubMedQA", tmp_path / "pubmedqa")
    pages: list[dict[str, Any]] = [
        {**row, "document_url": f"page/{number // 5}", "answer": row["answer"] if number % 2 else None}
        for number, row in enumerate(questions(200))
    ]
    medquad = tmp_path / "medquad" / "data" / "train-00000-of-00001.parquet"
    medquad.parent.mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(pages), medquad)
    client.hub.serve("dataset", "lavita/MedQuAD", tmp_path / "medquad")

    result = client.prepare("--domain", "health")
    assert result["dropped"] == {"no_answer": 100}
    test = [row for row in read_split(client.corpus, "test") if row.source == "pubmedqa"]
    assert len(test) == len(ids) == 500
    assert f"First {ids[0]}.\nSecond." in "\n".join(turn.content for turn in test[0].prompt)

    parquet.write_table(pa.Table.from_pylist(rows[3:]), pubmedqa)
    client.hub.serve("dataset", "qiaojin/PubMedQA", tmp_path / "pubmedqa")
    done = client.run("--domain", "health")
    assert done.returncode == 2
    assert "lacks 3 of the 500 official test ids" in done.stderr
