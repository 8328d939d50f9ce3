"""Who may use a server: web pages of other origins, clients over TLS, and load balancers that ask whether it is ready."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from finetune.errors import InputError
from finetune.models.load import LoadedModel
from finetune.recipe.options import ServeOptions
from finetune.serve import ServeTarget, serve
from finetune.serve.api.tls import check_certificate
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import GenerationParams

from .conftest import ALICE, Brake, hello, running

CHAT = "/v1/chat/completions"
PAGE = "https://page.example"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


def test_without_an_origin_no_web_page_may_read_an_answer(engine: Engine) -> None:
    with running(engine, ALICE) as server:
        preflight = server.ask("OPTIONS", CHAT, headers=PREFLIGHT)
        answer = server.ask("GET", "/health", headers={"Origin": PAGE})
    assert preflight.status == 401
    assert not [name for name in (*preflight.headers, *answer.headers) if name.startswith("access-control-")]


def test_a_page_of_an_allowed_origin_may_use_its_key(engine: Engine) -> None:
    with running(engine, ALICE, cors_origins=(PAGE,)) as server:
        preflight = server.ask("OPTIONS", CHAT, headers=PREFLIGHT)
        other = server.ask("OPTIONS", CHAT, headers=PREFLIGHT | {"Origin": "https://other.example"})
        put = server.ask("OPTIONS", CHAT, headers=PREFLIGHT | {"Access-Control-Request-Method": "PUT"})
        key = {"Authorization": f"Bearer {ALICE.value}"}
        answer = server.ask("POST", CHAT, hello(), key | {"Origin": PAGE})
        refused = server.ask("POST", CHAT, hello(), {"Origin": PAGE})
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (200, PAGE)
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in other.headers
    assert (other.status, other.error["code"]) == (400, "cors")
    assert "origin https://other.example" in other.error["message"]
    assert "method PUT" in put.error["message"]
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, PAGE)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, PAGE)


@pytest.mark.parametrize(("origin", "problem"), [("*", "any web page"), (PAGE + "/", "is not an origin"), ("x", "x")])
def test_an_origin_that_is_none_is_refused_and_any_origin_needs_a_key(origin: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        serve([ServeTarget("a", "nothing-here")], ServeOptions(port=0, cors_origins=(origin,)))


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A certificate for 127.0.0.1, its key, and the authority that vouches for it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    files = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    issued.cert_chain_pems[0].write_to_path(files[0])
    issued.private_key_pem.write_to_path(files[1])
    authority.cert_pem.write_to_path(files[2])
    return files


def test_a_server_with_a_certificate_speaks_https(engine: Engine, certificate: tuple[Path, Path, Path]) -> None:
    chain, key, authority = certificate
    context = ssl.create_default_context(cafile=str(authority))
    with running(engine, ssl_certfile=chain, ssl_keyfile=key) as server:
        assert server.url.startswith("https://127.0.0.1:")
        with urllib.request.urlopen(f"{server.url}/v1/models", timeout=30, context=context) as response:
            assert json.load(response)["data"][0]["id"] == "tiny"


def test_a_certificate_that_cannot_be_used_is_named(certificate: tuple[Path, Path, Path], tmp_path: Path) -> None:
    chain, key, authority = certificate
    check_certificate(chain, key)
    check_certificate(None, None)
    for files, problem in (
        ((chain, None), "--ssl-keyfile"),
        ((None, key), "--ssl-certfile"),
        ((authority, key), "not a certificate and its private key"),
        ((key, chain), "not a certificate and its private key"),
        ((tmp_path / "none.pem", key), "No such file"),
    ):
        with pytest.raises(InputError, match=problem):
            check_certificate(*files)


def test_a_full_queue_is_alive_but_not_ready(make_engine: Callable[..., Engine], loaded: LoadedModel) -> None:
    brake = Brake(loaded)
    engine = make_engine(queue_size=1)
    with running(engine) as server:
        before = server.ask("GET", "/ready").status
        engine.submit([1], GenerationParams(max_tokens=1), "tiny", lambda event: None)
        assert brake.reached.wait(30)
        engine.submit([1], GenerationParams(max_tokens=1), "tiny", lambda event: None)
        answers = [server.ask("GET", path) for path in ("/health", "/ready")]
        brake.released.set()
    assert before == 200
    assert [answer.status for answer in answers] == [200, 503]
    assert answers[1].error["code"] == "unavailable"
    engine.close()
