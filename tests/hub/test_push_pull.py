from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import yaml
from gguf import GGUFWriter
from safetensors.numpy import save_file

from finetune.artifacts import Adapter, Artifact, Corpus, EvalReport, Export, Model, writing
from finetune.cards.model_card import model_card
from finetune.errors import ArtifactError, HubError, InputError, OutputExistsError, UnknownNameError
from finetune.export import ExportRequest, export_artifact
from finetune.hub.pull import pull
from finetune.hub.push import push
from finetune.merge import MergeRequest, merge_adapter
from finetune.recipe import AdapterRecipe
from finetune.recipe.options import ExportFormat, ExportOptions
from finetune.records import Example, Message
from finetune.serve.chat import open_conversation

from ..command import run
from ..corpora import write_corpus
from ..encoders import NEWS, SHALLOW, write_encoder, write_encoder_adapter
from .local_hub import READ_TOKEN, WRITE_TOKEN, Fault, LocalHub

ADAPTER = ("model", "tester/finance")
BASE = {"name": "acme/tiny", "source": "hub", "revision": "main", "fingerprint": "b" * 64, "license": "mit"}
ROW = Example("1", (Message("user", "Up?"), Message("assistant", "yes")), "qa", source="mine", license="mit")


def write_adapter(folder: Path, *, weight: float = 0.0, files: dict[str, bytes] | None = None) -> Adapter:
    """An adapter like one that training writes, without training."""
    corpus = {"fingerprint": "c" * 64, "domain": "finance", "sources": [], "counts": {"train": 3}}
    with writing(folder, Adapter, overwrite=True) as writer:
        save_file({"lora_A": np.full((4, 4), weight, dtype=np.float32)}, writer.folder / "adapter_model.safetensors")
        (writer.folder / "adapter_config.json").write_text('{"base_model_name_or_path": "acme/tiny", "r": 4}')
        for name, content in (files or {}).items():
            (writer.folder / name).write_bytes(content)
        writer.manifest["config"] = AdapterRecipe().model_dump(mode="json")
        writer.manifest["parents"] = {"base_model": BASE, "corpus": corpus}
        (writer.folder / "README.md").write_text(model_card(Adapter(writer.folder, writer.manifest), None))
    return Adapter.open(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def commits(hub: LocalHub) -> list[str]:
    """The titles of the commits to the adapter's repository after its creation."""
    return [commit.title for commit in hub.repos[ADAPTER].commits[1:]]


def card(hub: LocalHub, name: str = "tester/finance") -> str:
    return hub.repos["model", name].head.files["README.md"].data.decode()


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    return write_adapter(tmp_path / "runs" / "adapter")


@pytest.fixture
def hub(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LocalHub:
    """The local Hub, to which this process is logged in; set by patching, because the client reads variables on import."""
    for name, value in {
        "ENDPOINT": local_hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": f"{local_hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    for module in ("retry", "client"):
        monkeypatch.setattr(f"finetune.hub.{module}.WAITS", (0.01,) * 4)
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    return local_hub


class Client:
    """The installed command, for a user whose Hub is `hub`."""

    def __init__(self, hub: LocalHub, home: Path) -> None:
        self.hub, self.home = hub, home

    def run(self, *arguments: object, token: str | None = WRITE_TOKEN) -> subprocess.CompletedProcess[str]:
        ours: dict[str, str | None] = dict.fromkeys(name for name in os.environ if name.startswith("HF_"))
        ours |= self.hub.environ(self.home / "hf", token) | {"HOME": str(self.home)}
        return run(*arguments, cwd=self.home.parent, env=ours)

    def ok(self, *arguments: object) -> dict[str, Any]:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def refused(self, *arguments: object, code: int, token: str | None = WRITE_TOKEN) -> str:
        done = self.run(*arguments, token=token)
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert WRITE_TOKEN not in done.stderr
        return done.stderr


@pytest.fixture
def client(local_hub: LocalHub, tmp_path: Path) -> Client:
    return Client(local_hub, tmp_path / "home")


# The commands


def test_commands_push_privately_and_pull_the_same_bytes(client: Client, adapter: Adapter, tmp_path: Path) -> None:
    pushed = client.ok("push", adapter.path, "tester/finance")
    pulled = client.ok("pull", "tester/finance", "--output-dir", tmp_path / "there")

    assert pushed["private"] is True
    assert client.hub.repos[ADAPTER].private is True
    assert contents(tmp_path / "there") == contents(adapter.path)
    assert pulled["revision"] == pushed["commit"]
    assert pulled["verified"] is True


def test_pushed_corpus_loads_with_datasets(client: Client, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", {"train": [ROW, ROW], "test": [ROW]}, facts={"domain": "finance"})
    pushed = client.ok("push", corpus.path, "tester/rows")

    code = (
        "import datasets; print({name: part.num_rows for name, part in datasets.load_dataset('tester/rows').items()})"
    )
    environment = {**os.environ, **client.hub.environ(tmp_path / "cache")}
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert loaded.stdout.strip() == "{'train': 2, 'test': 1}"
    assert pushed["url"].endswith("/datasets/tester/rows")


@pytest.mark.parametrize("merged", [False, True], ids=["adapter", "merged model"])
def test_encoder_comes_back_with_its_head_and_its_labels(hub: LocalHub, tmp_path: Path, merged: bool) -> None:
    base = write_encoder(tmp_path / "bert", "bert")
    path = write_encoder_adapter(tmp_path / "runs" / "adapter", base, NEWS)
    if merged:
        path = merge_adapter(MergeRequest(path, tmp_path / "runs" / "model")).model
    push(path, "tester/news")
    pulled = pull("tester/news", tmp_path / "there").path
    metadata = yaml.safe_load(card(hub, "tester/news").split("---\n")[1])
    assert (metadata["pipeline_tag"], metadata["library_name"]) == (
        "text-classification",
        "transformers" if merged else "peft",
    )
    assert "`bearish`, `neutral`, `bullish`" in card(hub, "tester/news")
    answers = []
    for folder in (path, pulled):
        with open_conversation("news", folder, model=None if merged else str(base)) as session:
            answers.append(session.answer("profit rose"))
    assert answers[0] == answers[1]


EXPORTS: dict[ExportFormat, tuple[str, str]] = {  # the main file, and how the card runs it
    "gguf": ("model-q8_0.gguf", "llama-cli -hf tester/export\nollama run hf.co/tester/export\n"),
    "gguf-lora": ("adapter.gguf", "llama-cli -m base/model-q8_0.gguf --lora export/adapter.gguf\n"),
    "vllm": ("adapter_config.json", "--enable-lora --max-lora-rank 16 --lora-modules custom=export --chat-template"),
    "onnx": ("onnx/model.onnx", 'pipeline("text-classification", "tester/export", { dtype: "fp32" })'),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", EXPORTS)
def test_export_is_pushed_with_a_card_that_runs_it_and_pulled_whole(
    client: Client, tiny_adapter: Path, tmp_path: Path, kind: ExportFormat
) -> None:
    source = tiny_adapter
    if kind == "onnx":
        base = write_encoder(tmp_path / "bert", "bert", **SHALLOW["bert"])
        source = write_encoder_adapter(tmp_path / "adapter", base, NEWS)
    write_report(tmp_path / "runs" / "eval", Adapter.open(source))
    folder = tmp_path / "runs" / "export" / kind
    made = export_artifact(ExportRequest(source, folder, ExportOptions(format=kind, ollama=kind == "gguf")))
    pushed = client.ok("push", folder, "tester/export")
    client.ok("pull", "tester/export", "--output-dir", tmp_path / "there")

    name, command = EXPORTS[kind]
    text = card(client.hub, "tester/export")
    assert pushed["kind"] == "export"
    assert contents(tmp_path / "there") == contents(folder)
    assert Export.open(tmp_path / "there").manifest["files"][name]
    assert command in text
    assert made.agreement is not None
    assert f"| Mean KL in nats | {max(made.agreement.mean_kl, 0):.4f} |" in text
    assert made.agreement.runtime in text
    assert "| sentiment | 8 | Accuracy | 0.500 | 0.750 | 0.750 |" in text


def test_export_that_discloses_something_is_refused_by_name(client: Client, tmp_path: Path) -> None:
    row = "MESSAGE user Was Swordfish 4711 ill?"
    with writing(tmp_path / "export", Export, overwrite=False) as writer:
        gguf = GGUFWriter(writer.folder / "model.gguf", "llama")
        gguf.add_source_url("/home/ann/models/tiny")
        gguf.write_header_to_file()
        gguf.write_kv_data_to_file()
        gguf.close()
        (writer.folder / "Modelfile").write_text(f"FROM ./model.gguf\n{row}\n")
        (writer.folder / "system").write_text(row)

    refusal = client.refused("push", tmp_path / "export", "tester/export", code=3)
    assert "Modelfile contains lines other than FROM, PARAMETER, TEMPLATE" in refusal
    assert "model.gguf contains an absolute path" in refusal
    assert "system is not in a shareable format" in refusal
    assert "Swordfish" not in refusal
    assert "ann" not in refusal
    assert client.hub.requests == []


@pytest.mark.parametrize(
    ("name", "token", "flags", "code", "hint"),
    [
        ("tester/finance", None, [], 2, "hf auth login"),
        ("tester/finance", "hf_" + "x" * 34, [], 2, "hf auth login"),
        ("tester/finance", READ_TOKEN, [], 1, "write access"),
        ("somebody/finance", WRITE_TOKEN, [], 1, "You are tester, member of tester-lab"),
        ("tester/finance", WRITE_TOKEN, ["--offline"], 2, "without --offline"),
        ("finance", WRITE_TOKEN, [], 2, "NAMESPACE/NAME"),
    ],
    ids=["logged out", "bad token", "read-only token", "foreign namespace", "offline", "bad name"],
)
def test_refused_push_says_why_and_changes_nothing(
    client: Client, adapter: Adapter, name: str, token: str | None, flags: list[str], code: int, hint: str
) -> None:
    assert hint in client.refused("push", adapter.path, name, *flags, code=code, token=token)

    assert client.hub.repos == {}
    assert client.hub.large_files == {}


def test_damaged_artifact_is_refused_before_the_hub_is_contacted(client: Client, adapter: Adapter) -> None:
    with (adapter.path / "adapter_model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")

    assert "adapter_model.safetensors has changed" in client.refused("push", adapter.path, "tester/finance", code=2)
    assert client.hub.requests == []


def test_file_that_discloses_something_is_refused_by_name(client: Client, adapter: Adapter) -> None:
    (adapter.path / "README.md").write_text(f"Use my token {WRITE_TOKEN}")

    assert "README.md contains an access token" in client.refused("push", adapter.path, "tester/finance", code=3)
    assert client.hub.requests == []


def test_hub_out_of_reach_ends_in_one_sentence(client: Client, adapter: Adapter) -> None:
    client.hub.endpoint = "http://127.0.0.1:9"  # nothing listens on the discard port

    assert "cannot be reached" in client.refused("push", adapter.path, "tester/finance", code=1)


# What a push leaves on the Hub


def test_push_makes_a_public_repository_only_on_request(hub: LocalHub, adapter: Adapter) -> None:
    assert push(adapter.path, "tester-lab/finance", public=True).private is False
    assert hub.repos["model", "tester-lab/finance"].private is False


def test_visibility_of_a_repository_is_never_changed(hub: LocalHub, adapter: Adapter) -> None:
    push(adapter.path, "tester/finance")
    push(adapter.path, "tester/open", public=True)

    with pytest.raises(InputError, match="is private"):
        push(adapter.path, "tester/finance", public=True)
    with pytest.raises(InputError, match="--public"):
        push(adapter.path, "tester/open")
    assert hub.repos[ADAPTER].private is True
    assert hub.repos["model", "tester/open"].private is False


def test_a_push_is_one_commit_and_the_same_again_is_none(hub: LocalHub, adapter: Adapter) -> None:
    first = push(adapter.path, "tester/finance", message="First try")
    second = push(adapter.path, "tester/finance", message="Second try")

    assert commits(hub) == ["First try"]
    assert (first.changed, second.changed) == (True, False)
    assert second.commit == first.commit


def test_new_version_removes_its_old_files_and_keeps_those_of_others(hub: LocalHub, tmp_path: Path) -> None:
    push(write_adapter(tmp_path / "old", files={"training.html": b"<p>"}).path, "tester/finance")
    repo = hub.repos[ADAPTER]
    repo.add("by hand", {**repo.head.files, "LICENSE": repo.head.files["README.md"]})
    push(write_adapter(tmp_path / "new", weight=1.0).path, "tester/finance")

    assert set(repo.head.files) == {".gitattributes", "LICENSE", *contents(tmp_path / "new")}
    assert len(repo.commits) == 4


def test_stray_files_are_not_pushed(hub: LocalHub, adapter: Adapter) -> None:
    expected = set(contents(adapter.path))
    for name in ("training_args.bin", "optimizer.pt", "adapter_config.json~"):
        (adapter.path / name).write_bytes(b"\x80\x04")

    push(adapter.path, "tester/finance")

    assert set(hub.repos[ADAPTER].head.files) - {".gitattributes"} == expected


def test_folder_that_is_not_an_artifact_is_refused(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")

    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        push(tmp_path, "tester/finance")


def test_every_kind_of_artifact_can_be_pushed_and_pulled(hub: LocalHub, tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", {"train": [ROW]})
    with writing(tmp_path / "model", Model, overwrite=False) as writer:
        save_file({"weight": np.zeros((2, 2), dtype=np.float32)}, writer.folder / "model.safetensors")
        writer.manifest["parents"] = {"adapter": {"fingerprint": "a" * 64}, "base_model": BASE}

    for kind in ("corpus", "model"):
        push(tmp_path / kind, f"tester/{kind}")
        assert pull(f"tester/{kind}", tmp_path / "there" / kind).kind == kind
        assert contents(tmp_path / "there" / kind) == contents(tmp_path / kind)


# Failures of the Hub


@pytest.mark.parametrize(
    "fault", [Fault(503, every=3), Fault(429, every=4), Fault(503, path="GET .*/resolve/", every=2)], ids=str
)
def test_busy_hub_is_survived(hub: LocalHub, adapter: Adapter, tmp_path: Path, fault: Fault) -> None:
    hub.faults.append(fault)

    push(adapter.path, "tester/finance", message="Once")
    pull("tester/finance", tmp_path / "there")

    assert fault.done > 1
    assert commits(hub) == ["Once"]
    assert contents(tmp_path / "there") == contents(adapter.path)


@pytest.mark.parametrize("status", [0, 503], ids=["answer lost", "refused once"])
def test_failed_commit_is_made_once(hub: LocalHub, adapter: Adapter, status: int) -> None:
    hub.faults.append(Fault(status, times=1, path="POST .*/commit/"))

    result = push(adapter.path, "tester/finance", message="Once")

    assert commits(hub) == ["Once"]
    assert result.commit == hub.repos[ADAPTER].head.sha
    assert result.changed is True


def test_wait_that_the_hub_requests_is_respected(
    hub: LocalHub, adapter: Adapter, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults.append(Fault(429, times=1, path="whoami", retry_after=2))

    with caplog.at_level("INFO", "finetune"):
        push(adapter.path, "tester/finance")

    assert "Trying again in 2 s" in caplog.text


def test_wait_that_is_too_long_is_left_to_the_user(hub: LocalHub, adapter: Adapter) -> None:
    hub.faults.append(Fault(429, path="whoami", retry_after=3600))

    with pytest.raises(HubError, match="asks to wait 3600 s"):
        push(adapter.path, "tester/finance")


# Model cards


def write_report(folder: Path, adapter: Artifact, files: dict[str, str] | None = None) -> None:
    scores = {"accuracy": 0.75}
    task = {"n": 8, "metric": "accuracy", "majority": 0.5, "majority_label": "up", "base": scores, "adapter": scores}
    task |= {"delta": 0.0, "ci95": [0.0, 0.0], "p_value": 1.0}
    with writing(folder, EvalReport, overwrite=True) as writer:
        (writer.folder / "report.json").write_text(json.dumps({"tasks": {"sentiment": task}}))
        for name, text in (files or {}).items():
            (writer.folder / name).write_text(text)
        writer.manifest["parents"] = {"adapter": {"fingerprint": adapter.fingerprint}}


def test_push_quotes_the_evaluation_of_this_adapter_only(hub: LocalHub, adapter: Adapter) -> None:
    write_report(adapter.path.parent / "eval", adapter)
    push(adapter.path, "tester/finance")
    push(write_adapter(adapter.path.parent / "other", weight=1.0).path, "tester/other")

    assert "| sentiment | 8 | Accuracy | 0.500 | 0.750 | 0.750 |" in card(hub)
    assert "slmtune pull tester/finance" in card(hub)
    assert "Not evaluated yet" in card(hub, "tester/other")


def test_rows_on_the_page_of_an_evaluation_stay_here(hub: LocalHub, adapter: Adapter) -> None:
    """The page and the samples contain text of rows: neither leaves, whether the evaluation is pushed or the adapter."""
    folder, row = adapter.path.parent / "eval", "Swordfish 4711 rose."
    write_report(folder, adapter, {"report.html": row, "samples.jsonl": row})

    with pytest.raises(ArtifactError, match="eval report"):
        push(folder, "tester/eval")
    assert hub.repos == {}
    (adapter.path / "report.html").write_text(row)
    push(adapter.path, "tester/finance")

    pushed = hub.repos[ADAPTER].head.files
    assert "0.750" in card(hub)
    assert not [name for name, blob in pushed.items() if row.encode() in blob.data]


def test_edited_card_is_pushed_unchanged(hub: LocalHub, adapter: Adapter) -> None:
    edited = (adapter.path / "README.md").read_text() + "\nWith my own remarks.\n"
    (adapter.path / "README.md").write_text(edited)

    push(adapter.path, "tester/finance")

    assert card(hub) == edited


def test_card_names_only_public_data_sets(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    hub.serve("dataset", "acme/open", tmp_path / "data")
    hub.serve("dataset", "acme/closed", tmp_path / "data", private=True)
    sources = [{"id": name, "uri": f"hf://datasets/acme/{name}", "license": "mit"} for name in ("open", "closed")]
    with writing(tmp_path / "adapter", Adapter, overwrite=False) as writer:
        writer.manifest["parents"] = {"base_model": BASE, "corpus": {"fingerprint": "c" * 64, "sources": sources}}

    push(tmp_path / "adapter", "tester/finance")

    assert "- acme/open\n" in card(hub)
    assert "acme/closed" not in card(hub)


# What a pull downloads


def test_pull_replaces_only_with_overwrite(hub: LocalHub, adapter: Adapter, tmp_path: Path) -> None:
    push(adapter.path, "tester/finance")
    there = write_adapter(tmp_path / "there", weight=1.0)

    with pytest.raises(OutputExistsError):
        pull("tester/finance", there.path)
    assert Adapter.open(there.path).fingerprint == there.fingerprint
    pull("tester/finance", there.path, overwrite=True)
    assert Adapter.open(there.path).fingerprint == adapter.fingerprint


def test_pull_takes_an_earlier_commit(hub: LocalHub, adapter: Adapter, tmp_path: Path) -> None:
    first = push(adapter.path, "tester/finance")
    push(write_adapter(tmp_path / "new", weight=1.0).path, "tester/finance")

    pull("tester/finance", tmp_path / "there", revision=first.commit)

    assert Adapter.open(tmp_path / "there").fingerprint == adapter.fingerprint


def test_adapter_and_corpus_of_one_name_are_both_reachable(hub: LocalHub, adapter: Adapter, tmp_path: Path) -> None:
    push(write_corpus(tmp_path / "corpus", {"train": [ROW]}).path, "tester/finance")
    push(adapter.path, "tester/finance")

    assert pull("tester/finance", tmp_path / "one").kind == Adapter.kind
    assert pull("datasets/tester/finance", tmp_path / "two").kind == Corpus.kind


def test_unknown_repository_or_revision_is_named(
    hub: LocalHub, adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(adapter.path, "tester/finance")

    with pytest.raises(UnknownNameError, match="'tester/nothing'"):
        pull("tester/nothing", tmp_path / "there")
    with pytest.raises(UnknownNameError, match="no such revision"):
        pull("tester/finance", tmp_path / "there", revision="v9")
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(UnknownNameError, match="hf auth login"):
        pull("tester/finance", tmp_path / "there")


def test_gated_repository_says_what_to_accept(hub: LocalHub, adapter: Adapter, tmp_path: Path) -> None:
    hub.serve("model", "acme/gated", adapter.path, gated=True)

    with pytest.raises(HubError, match="accept its terms"):
        pull("acme/gated", tmp_path / "there")


def test_repository_that_slmtune_did_not_make_is_refused(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "config.json").write_text("{}")
    hub.serve("model", "acme/plain", tmp_path / "repo")

    with pytest.raises(InputError, match="not made by slmtune"):
        pull("acme/plain", tmp_path / "there")


@pytest.mark.parametrize(
    "name",
    ["../escaped.json", "/tmp/escaped.json", "a/../../escaped.json", "a\\..\\b.json", ".bashrc", "run.py", "x.bin"],
)
def test_manifest_cannot_name_a_file_outside_or_one_that_runs(
    hub: LocalHub, adapter: Adapter, tmp_path: Path, name: str
) -> None:
    manifest = json.loads((adapter.path / "manifest.json").read_text())
    manifest["files"][name] = "0" * 64
    (adapter.path / "manifest.json").write_text(json.dumps(manifest))
    repo = hub.serve("model", "acme/evil", adapter.path)
    repo.add("evil", {**repo.head.files, name: repo.head.files["README.md"]})

    with pytest.raises(ArtifactError, match="refuses"):
        pull("acme/evil", tmp_path / "out" / "there")
    assert list((tmp_path / "out").iterdir()) == []
    assert [record.path for record in hub.requests if record.path.endswith(name)] == []


def test_changed_file_on_the_hub_is_noticed(hub: LocalHub, adapter: Adapter, tmp_path: Path) -> None:
    other = hub.serve("model", "acme/other", write_adapter(tmp_path / "other", weight=1.0).path)
    repo = hub.serve("model", "acme/changed", adapter.path)
    name = "adapter_model.safetensors"
    repo.add("change", {**repo.head.files, name: other.head.files[name]})

    with pytest.raises(ArtifactError, match=r"acme/changed at \w+ is damaged: adapter_model.safetensors has changed"):
        pull("acme/changed", tmp_path / "out" / "there")
    assert list((tmp_path / "out").iterdir()) == []


def test_files_that_the_manifest_does_not_list_are_not_downloaded(
    hub: LocalHub, adapter: Adapter, tmp_path: Path
) -> None:
    (adapter.path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    hub.serve("model", "acme/more", adapter.path)

    pull("acme/more", tmp_path / "there")

    assert "pytorch_model.bin" not in contents(tmp_path / "there")
