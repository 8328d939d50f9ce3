"""Adapters that come and go while the server runs: the routes of vLLM, behind their own key, for folders under one root."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from finetune.errors import MissingStageError, SlmtuneError, UnknownNameError
from finetune.serve.api.auth import LOAD_PATH, UNLOAD_PATH
from finetune.serve.api.body import read_body
from finetune.serve.api.operations import card_of
from finetune.serve.api.problem import ApiError, api_error
from finetune.serve.api.request_fields import RequestPart, parse_request
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import MODEL_NAME
from finetune.serve.engine.kinds import AnyEngine

MAX_NAME = 128


class LoadRequest(RequestPart):
    """Body of POST /v1/load_lora_adapter: `lora_path` is relative to the root, and by default the name."""

    lora_name: str = Field(min_length=1, max_length=MAX_NAME, pattern=f"^{MODEL_NAME.pattern}$")
    lora_path: str | None = Field(None, min_length=1, max_length=MAX_NAME)
    load_inplace: bool = False


class UnloadRequest(RequestPart):
    """Body of POST /v1/unload_lora_adapter."""

    lora_name: str = Field(min_length=1, max_length=MAX_NAME)


def add_admin(app: FastAPI, engine: AnyEngine, root: Path) -> None:
    """Add the routes to an application that serves adapters from folders under `root`."""

    @app.post(LOAD_PATH)
    async def load_adapter(request: Request) -> Response:
        """Serve an adapter from a folder under --adapter-dir, or replace one."""
        body = parse_request(LoadRequest, await read_body(request))
        generator = _require_engine(engine)
        folder = _folder_of(root, body.lora_path or body.lora_name)
        if body.lora_name in generator.served and not body.load_inplace:
            message = "A model of that name is served. Set load_inplace to replace it"
            raise ApiError(409, message, param="lora_name", code="adapter_exists")
        try:
            await run_in_threadpool(generator.load_adapter, body.lora_name, folder)
        except SlmtuneError as error:
            raise _admin_error(error, root) from None
        return JSONResponse(card_of(generator, generator.served[body.lora_name]))

    @app.post(UNLOAD_PATH)
    async def unload_adapter(request: Request) -> Response:
        """Serve an adapter no longer; its running requests are answered first."""
        body = parse_request(UnloadRequest, await read_body(request))
        try:
            await run_in_threadpool(_require_engine(engine).unload_adapter, body.lora_name)
        except SlmtuneError as error:
            raise _admin_error(error, root) from None
        return JSONResponse({"id": body.lora_name, "object": "model", "deleted": True})


def _require_engine(engine: AnyEngine) -> Engine:
    if isinstance(engine, Engine):
        return engine
    raise ApiError(400, "The adapters of an encoder stay as they are while the server runs. Restart it with others")


def _folder_of(root: Path, name: str) -> Path:
    """The folder of an adapter under the root; links that lead out of it count as absent."""
    folder = (root / name).resolve()
    if Path(name).is_absolute() or not folder.is_relative_to(root.resolve()) or not folder.is_dir():
        raise ApiError(404, "There is no such folder in --adapter-dir", param="lora_path", code="adapter_not_found")
    return folder


def _admin_error(error: SlmtuneError, root: Path) -> ApiError:
    """The answer to a change that failed, without the path of the root."""
    problem = api_error(error, "lora_name")
    message = problem.message.replace(f"{root.resolve()}/", "")
    status = 404 if isinstance(error, UnknownNameError | MissingStageError) else problem.status
    param = problem.param and "lora_name"
    return ApiError(status, message, param=param, code=problem.code, headers=problem.headers)
