"""Adapters that are loaded and unloaded while the server runs: by whom, from where, and what happens to the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finetune.cli.arguments import list_adapters
from finetune.errors import InputError
from finetune.recipe.options import ServeOptions
from finetune.serve import ApiKey, ServeTarget, serve
from finetune.serve.targets import open_engine

from .conftest import ALICE, Answer, Running, make_adapter, running

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
ADMIN = ApiKey("root", "key-of-the-administrator", is_admin=True)


@pytest.fixture
def root(two_adapters: dict[str, Path], tiny_model: Path, tmp_path: Path) -> Path:
    """A folder with three adapters, and beside it one that must not be reached."""
    folder = tmp_path / "adapters"
    for seed, name in enumerate(("news", "news-2", "facts"), 10):
        make_adapter(folder / name, tiny_model, seed)
    make_adapter(tmp_path / "outside", tiny_model, 20)
    (folder / "link").symlink_to(tmp_path / "outside")
    return folder


@pytest.fixture
def server(two_adapters: dict[str, Path], root: Path) -> Iterator[Running]:
    engine = open_engine([ServeTarget("health", two_adapters["health"])])
    try:
        with running(engine, ALICE, ADMIN, adapter_dir=root) as server:
            yield server
    finally:
        engine.close()
        engine.join()


def ask(server: Running, path: str, body: object, key: ApiKey = ADMIN) -> Answer:
    method = "GET" if body is None else "POST"
    return server.ask(method, path, body, {"Authorization": f"Bearer {key.value}"})


def said(server: Running, model: str) -> str:
    body = {"model": model, "prompt": "The bank", "max_tokens": 12, "temperature": 0}
    return str(ask(server, "/v1/completions", body, ALICE).data["choices"][0]["text"])


def names(server: Running) -> set[str]:
    return {card["id"] for card in ask(server, "/v1/models", None, ALICE).data["data"]}


def test_an_adapter_is_loaded_replaced_and_unloaded(server: Running, tiny_model: Path) -> None:
    before = names(server)
    loaded = ask(server, LOAD, {"lora_name": "news"})
    assert (loaded.status, loaded.data["id"], loaded.data["parent"]) == (200, "news", tiny_model.name)
    first = said(server, "news")
    assert first != said(server, "health")
    again = ask(server, LOAD, {"lora_name": "news", "lora_path": "news-2"})
    assert (again.status, again.error["code"]) == (409, "adapter_exists")
    assert ask(server, LOAD, {"lora_name": "news", "lora_path": "news-2", "load_inplace": True}).status == 200
    assert said(server, "news") != first
    assert names(server) == before | {"news"}
    assert ask(server, UNLOAD, {"lora_name": "news"}).data == {"id": "news", "object": "model", "deleted": True}
    assert names(server) == before
    gone = ask(server, "/v1/completions", {"model": "news", "prompt": "a"}, ALICE)
    assert (gone.status, gone.error["code"]) == (404, "model_not_found")


def test_only_the_key_of_an_administrator_loads_adapters_and_it_does_nothing_else(server: Running) -> None:
    for path in (LOAD, UNLOAD):
        assert ask(server, path, {"lora_name": "news"}, ALICE).status == 401
        assert server.ask("POST", path, {"lora_name": "news"}).status == 401
    assert ask(server, "/v1/models", None).status == 401


def test_without_such_a_key_the_routes_do_not_exist(two_adapters: dict[str, Path], root: Path) -> None:
    engine = open_engine([ServeTarget("health", two_adapters["health"])])
    try:
        with running(engine, adapter_dir=root) as server:
            assert server.ask("POST", LOAD, {"lora_name": "news"}).status == 401
            assert LOAD not in server.ask("GET", "/openapi.json").data["paths"]
        with running(engine, ADMIN) as server:
            assert ask(server, LOAD, {"lora_name": "news"}).status == 404
    finally:
        engine.close()
        engine.join()


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"lora_path": "../outside"}, 404, "lora_path"),
        ({"lora_path": "link"}, 404, "lora_path"),
        ({"lora_path": "/etc"}, 404, "lora_path"),
        ({"lora_path": "none"}, 404, "lora_path"),
        ({"lora_path": ""}, 400, "lora_path"),
        ({"lora_name": "../news"}, 400, "lora_name"),
        ({"lora_name": "a b"}, 400, "lora_name"),
        ({"lora_name": "tiny-llama", "lora_path": "news"}, 409, "lora_name"),
        ({"lora_int_id": 5}, 400, "lora_int_id"),
    ],
)
def test_only_folders_under_the_root_are_read(
    server: Running, tiny_model: Path, root: Path, fields: dict[str, object], status: int, param: str
) -> None:
    body = {"lora_name": "x", "lora_path": "news", **fields}
    body["lora_name"] = tiny_model.name if body["lora_name"] == "tiny-llama" else body["lora_name"]
    answer = ask(server, LOAD, body)
    assert (answer.status, answer.error["param"]) == (status, param)
    assert str(root) not in answer.text


def test_bad_adapters_are_refused_while_requests_run(server: Running, root: Path, tiny_model: Path) -> None:
    (root / "empty").mkdir()
    manifest = json.loads((root / "news" / "manifest.json").read_text("utf-8"))
    manifest["parents"]["base_model"]["fingerprint"] = "0" * 64
    make_adapter(root / "foreign", tiny_model, 30)
    (root / "foreign" / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    make_adapter(root / "damaged", tiny_model, 31)
    (root / "damaged" / "adapter_model.safetensors").write_bytes(b"x")
    before = said(server, "health")
    with ThreadPoolExecutor(4) as pool:
        running_requests = [pool.submit(said, server, "health") for _ in range(12)]
        for name in ("empty", "foreign", "damaged") * 3:
            answer = ask(server, LOAD, {"lora_name": name})
            assert answer.status in (400, 404), name
            assert str(root) not in answer.text
        assert {request.result(60) for request in running_requests} == {before}
    assert ask(server, UNLOAD, {"lora_name": "nobody"}).status == 404
    assert ask(server, UNLOAD, {"lora_name": tiny_model.name}).status == 400


def test_a_folder_of_adapters_is_served_whole(root: Path, tmp_path: Path) -> None:
    assert [name for name, _ in list_adapters(root)] == ["facts", "link", "news", "news-2"]
    assert list_adapters(None) == list_adapters(tmp_path / "none") == []


def test_a_root_that_is_none_and_a_key_without_a_root_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--adapter-dir"):
        serve([ServeTarget("a", "b")], ServeOptions(port=0), keys=[ADMIN])
    with pytest.raises(InputError, match="is not a folder"):
        serve([ServeTarget("a", "b")], ServeOptions(port=0, adapter_dir=tmp_path / "none"), keys=[ADMIN])


def test_the_key_of_an_administrator_does_not_open_the_server_to_other_machines(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="requires an API key"):
        serve([ServeTarget("a", "b")], ServeOptions(host="0.0.0.0", port=0, adapter_dir=tmp_path), keys=[ADMIN])
