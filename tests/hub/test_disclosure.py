from __future__ import annotations

import getpass
import json
import socket
import sysconfig
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from gguf import GGUFWriter
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from finetune.errors import CheckFailedError, InputError
from finetune.hub.disclosure import check_disclosure, is_shareable

TOKEN = "hf_" + "aB3" * 11


def check(folder: Path, name: str, content: str | bytes) -> None:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    check_disclosure({name: path})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.md", f"Log in with {TOKEN}."),
        ("manifest.json", json.dumps({"config": {"token": TOKEN}})),
        ("tokenizer.json", json.dumps({"note": TOKEN})),
        ("notes.txt", "-----BEGIN RSA PRIVATE KEY-----"),
        ("README.md", "Trained in /home/ann/projects/slm."),
        ("README.md", "See C:\\Users\\Ann\\models."),
        ("training.html", '<a href="file:///data/x">'),
        ("adapter_config.json", json.dumps({"base_model_name_or_path": "/models/tiny-llama"})),
        ("drops.jsonl", '{"id": "a"}\n{"id": "/data/rows.csv:3"}\n'),
        ("model.txt", b"\x80\x04\x95pickled"),
        ("weights.json", b"PK\x03\x04zip"),
        ("training_args.bin", "anything"),
        ("modeling.py", "print()"),
    ],
)
def test_file_that_discloses_something_is_refused_by_name(tmp_path: Path, name: str, content: str | bytes) -> None:
    with pytest.raises(CheckFailedError, match=name) as refusal:
        check(tmp_path, name, content)

    assert TOKEN not in str(refusal.value)
    assert "ann" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.md", "Load it with `slmtune chat ./adapter` or from https://example.org/home/ann/model."),
        (
            "README.md",
            "`hf_hub_download` needs no token; either/or; data/train-00000-of-00001.parquet; ~100 rows; 1/2.",
        ),
        ("adapter_config.json", json.dumps({"base_model_name_or_path": "acme/tiny", "target_modules": ["q_proj"]})),
        ("tokenizer.json", json.dumps({"model": {"vocab": {"/usr/bin": 1, "/home/x": 2}}})),
        ("chat_template.jinja", "{% for message in messages %}{{ message.role }}{% endfor %}"),
        ("LICENSE", "Apache License"),
    ],
)
def test_ordinary_file_is_accepted(tmp_path: Path, name: str, content: str) -> None:
    check(tmp_path, name, content)


def test_token_in_use_is_found_in_any_form(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("my-company-token-1")

    with pytest.raises(CheckFailedError, match=r"README\.md"):
        check_disclosure({"README.md": tmp_path / "README.md"}, "my-company-token-1")


def test_folder_that_contains_the_artifact_is_found(tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match=r"notes\.txt"):
        check(tmp_path, "notes.txt", f"wrote {tmp_path}/x")


def test_token_in_a_row_is_found(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    parquet.write_table(pa.table({"messages": [[{"content": "hello"}], [{"content": f"use {TOKEN}"}]]}), path)

    with pytest.raises(CheckFailedError, match=r"data/train\.parquet"):
        check_disclosure({"data/train.parquet": path})


def test_path_in_the_header_of_weights_is_found(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": np.zeros(2)}, path, metadata={"source": "/home/ann/run"})

    with pytest.raises(CheckFailedError, match=r"model\.safetensors"):
        check_disclosure({"model.safetensors": path})


def write_gguf(path: Path, **texts: str) -> None:
    writer = GGUFWriter(path, "llama")
    writer.add_name("acme/tiny")
    writer.add_token_list(["/home/ann", "/usr/bin/env"])
    for name, text in texts.items():
        writer.add_string(f"general.{name}", text)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_onnx(path: Path, **notes: str) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    node = helper.make_node("Identity", ["x"], ["y"], name="/bert/embeddings/Identity")
    helper.set_model_props(node, notes)
    onnx.save(helper.make_model(helper.make_graph([node], "main", values[:1], values[1:])), path)


WRITERS = {"model-q8_0.gguf": write_gguf, "onnx/model.onnx": write_onnx}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('File "/home/ann/run.py", line 3', "absolute path of this machine"),
        (f"{sysconfig.get_path('purelib')}/torch/nn.py", "absolute path of this machine"),
        ("/data/models/tiny", "absolute path"),
        (TOKEN, "access token"),
    ],
)
@pytest.mark.parametrize("name", WRITERS)
def test_metadata_of_an_exported_file_is_read(name: str, text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / Path(name).name
    WRITERS[name](path)
    check_disclosure({name: path})
    WRITERS[name](path, source=text)

    with pytest.raises(CheckFailedError, match=f"{name} contains an {problem}") as refusal:
        check_disclosure({name: path})
    assert text not in str(refusal.value)


def test_numbers_beside_an_onnx_file_are_shared_unread(tmp_path: Path) -> None:
    check(tmp_path, "model.onnx_data", b"\xff/home/ann")  # as in any tensor, bytes may look like anything


@pytest.mark.parametrize("name", WRITERS)
def test_file_that_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match="damaged"):
        check(tmp_path, Path(name).name, b"\x07GGUF" + bytes(64))


def test_onnx_file_is_not_shared_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_onnx(tmp_path / "model.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(InputError, match=r"pip install 'slmtune\[onnx\]'"):
        check_disclosure({"model.onnx": tmp_path / "model.onnx"})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("MESSAGE user Is Ann ill?", "text of conversations"),
        ('system """You work for Ann."""', "text of conversations"),
        ("# for Ann", "text of conversations"),
        ("ADAPTER /data/models/ann.gguf", "an absolute path"),
    ],
)
def test_private_text_in_a_modelfile_is_found(line: str, problem: str, tmp_path: Path) -> None:
    written = 'FROM ./model.gguf\nTEMPLATE """{{ .Prompt }}\nMESSAGE /a/b """\nPARAMETER stop "<|im_end|>"\n'
    check(tmp_path, "Modelfile", written)

    with pytest.raises(CheckFailedError, match=f"Modelfile contains .*{problem}") as refusal:
        check(tmp_path, "Modelfile", written + line)
    assert "Ann" not in str(refusal.value)


def test_names_of_machine_and_user_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-box-7.example.org")
    monkeypatch.setattr(getpass, "getuser", lambda: "annabel")

    with pytest.raises(CheckFailedError, match="name of this machine"):
        check(tmp_path, "README.md", "Trained on gpu-box-7 last night.")
    with pytest.raises(CheckFailedError, match="name of this machine"):
        check(tmp_path, "manifest.json", json.dumps({"by": "annabel"}))
    check(tmp_path, "README.md", "slmtune pull annabel/finance")  # the namespace on the Hub is no secret


def test_only_data_formats_are_shared() -> None:
    assert all(
        map(
            is_shareable,
            ["a.safetensors", "a.gguf", "onnx/a.onnx", "Modelfile", "data/x.parquet", "chat_template.jinja", "LICENSE"],
        )
    )
    assert not any(map(is_shareable, ["a.bin", "a.pt", "a.py", "a.sh", "a", "a.json.exe", "system", "Modelfile.sh"]))
