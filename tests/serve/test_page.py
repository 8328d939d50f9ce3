"""The page at `/` in a real browser: it compares the served models, keeps the key to itself and runs no text as markup."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from finetune.models.heads import Head
from finetune.models.load import LoadedModel
from finetune.records import Message
from finetune.scoring.label_tasks import LabelTask
from finetune.serve.api.page import page_response
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import GenerationParams
from finetune.serve.engine.kinds import AnyEngine
from finetune.serve.targets import ServeTarget, open_engine

from ..browser import CHROMIUM, FAINT, OVERFLOW, Browser, Visit
from ..encoders import ANSWERS, NEWS, TOPICS, write_encoder, write_encoder_adapter
from .conftest import ALICE, KEY, Brake, Running, make_adapter, running

in_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")

READY = "!document.querySelector('#question').hidden"
DONE = "document.querySelector('#status').textContent === 'Done.'"
COLUMNS = """
[...document.querySelectorAll('.column')].map(column => ({
  model: column.querySelector('select').value,
  origin: column.querySelector('.origin').textContent,
  text: column.querySelector('.answer').textContent,
  shares: Object.fromEntries([...column.querySelectorAll('tr')].map(row =>
    [row.querySelector('th').textContent, row.style.getPropertyValue('--share')])),
  figures: Object.fromEntries([...column.querySelectorAll('.figures div')].map(pair =>
    [pair.querySelector('dt').textContent, pair.querySelector('dd').textContent])),
}))
"""
FOCUS = """
(() => {
  const at = document.activeElement;
  return at.id || at.getAttribute('aria-label') || (at.tagName === 'SELECT' ? at.value : at.textContent.trim());
})()
"""


@pytest.fixture(scope="module")
def compared(two_adapters: dict[str, Path]) -> Iterator[AnyEngine]:
    """Two adapters and their base model in one engine."""
    engine = open_engine([ServeTarget(name, path) for name, path in two_adapters.items()])
    yield engine
    engine.close()
    engine.join()


@pytest.fixture(scope="module")
def server(compared: AnyEngine) -> Iterator[Running]:
    with running(compared) as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


def fill(visit: Visit, **fields: object) -> None:
    for name, value in fields.items():
        visit.evaluate(f"document.querySelector('#{name}').value = {json.dumps(str(value))}")


def open_page(browser: Browser, url: str, *, width: int = 1280, height: int = 800, dark: bool = False) -> Visit:
    visit = browser.open(f"{url}/", width=width, height=height, dark=dark)
    visit.wait_for(READY)
    return visit


def columns(visit: Visit) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = visit.evaluate(COLUMNS)
    return found


def assert_whole_and_private(visit: Visit, url: str) -> None:
    """All can be read, nothing but the server itself was asked, and nothing went wrong."""
    assert visit.evaluate(OVERFLOW) <= 0
    assert visit.evaluate(FAINT) == []
    assert [each for each in visit.requests if not each.startswith((f"{url}/", "data:,"))] == []
    assert visit.errors == []


def test_page_is_one_file_that_may_only_run_its_own_script() -> None:
    page = page_response()
    html = bytes(page.body).decode()
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'sha256-" in policy
    assert "unsafe" not in policy
    assert not any(word in html for word in ("https:", "http:", "innerHTML", "insertAdjacent", "Storage", "cookie"))


@in_browser
def test_base_and_adapter_answer_side_by_side(
    browser: Browser, server: Running, compared: Engine, tiny_model: Path
) -> None:
    visit = open_page(browser, server.url)
    fill(visit, first="Did profit rise?", second="Be brief.", length=12)
    visit.press("Enter", control=True)
    visit.wait_for(DONE)
    said = [Message("system", "Be brief."), Message("user", "Did profit rise?")]
    shown = columns(visit)
    assert [column["model"] for column in shown] == [tiny_model.name, "health"]
    assert [column["origin"] for column in shown] == ["Base model", "Adapter"]
    assert visit.evaluate("document.querySelector('#about').textContent").endswith(f", over {tiny_model.name}")
    for column in shown:
        generation = compared.generate(said, GenerationParams(max_tokens=12, temperature=0), column["model"])
        answer = "".join(generation)
        assert generation.result is not None
        cut = "Cut at the longest answer." if generation.result.finish_reason == "length" else ""
        assert column["text"] == answer + cut
        assert column["figures"]["tokens"] == str(generation.result.completion_tokens)
        assert column["figures"]["first token"].endswith(" s")
        assert float(column["figures"]["tokens/s"]) > 0
    assert_whole_and_private(visit, server.url)


@in_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_page_fits_and_can_be_read(browser: Browser, server: Running, width: int, dark: bool) -> None:
    visit = open_page(browser, server.url, width=width, dark=dark)
    visit.evaluate("document.querySelector('#add').click()")
    fill(visit, first="Did profit rise?", length=40)
    visit.press("Enter", control=True)
    visit.wait_for(DONE)
    assert [column["model"] for column in columns(visit)][1:] == ["health", "finance"]
    assert_whole_and_private(visit, server.url)
    background = visit.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(252, 251, 249)") is not dark


@in_browser
def test_everything_is_reached_with_the_keyboard(browser: Browser, server: Running, tiny_model: Path) -> None:
    visit = open_page(browser, server.url)
    reached = []
    for _ in range(10):
        reached.append(visit.evaluate(FOCUS))
        assert visit.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        visit.press("Tab")
    base = tiny_model.name
    assert reached == [
        *("first", "second", "temperature", "length", "Send"),
        *(base, f"Remove {base}", "health", "Remove health", "add"),
    ]
    tree = browser.ask("Accessibility.getFullAXTree", visit.session)["nodes"]
    controls = [
        node for node in tree if node["role"]["value"] in ("button", "combobox", "spinbutton", "textbox", "region")
    ]
    assert len(controls) > 10
    assert [node["role"]["value"] for node in controls if not node["name"]["value"]] == []
    unnamed = "[...document.querySelectorAll('input, textarea, select')].filter(each => !each.labels.length).length"
    assert visit.evaluate(unnamed) == 0


@in_browser
def test_models_are_added_exchanged_and_removed(browser: Browser, server: Running, tiny_model: Path) -> None:
    visit = open_page(browser, server.url)
    visit.evaluate("document.querySelector('#add').click()")
    assert visit.evaluate("document.querySelector('#add').hidden")
    assert visit.evaluate("document.activeElement.value") == "finance"
    visit.evaluate("document.querySelector('[aria-label=\"Remove health\"]').click()")
    assert [column["model"] for column in columns(visit)] == [tiny_model.name, "finance"]
    fill(visit, first="Did profit rise?", length=4)
    visit.press("Enter", control=True)
    visit.wait_for(DONE)
    select = "document.querySelectorAll('select')[1]"
    visit.evaluate(f"{select}.value = 'health'; {select}.dispatchEvent(new Event('change'))")
    first, second = columns(visit)
    assert first["text"]
    assert second["text"] == ""  # the answer of another model does not stay under the new name


@in_browser
def test_adapter_that_is_loaded_later_can_be_chosen(
    browser: Browser, two_adapters: dict[str, Path], tiny_model: Path
) -> None:
    engine = open_engine([ServeTarget("health", two_adapters["health"])])
    assert isinstance(engine, Engine)
    options = "[...document.querySelectorAll('select')[0].options].map(option => option.value)"
    with running(engine) as server:
        visit = open_page(browser, server.url)
        assert visit.evaluate(options) == [tiny_model.name, "health"]
        engine.load_adapter("finance", two_adapters["finance"])
        visit.evaluate("document.querySelectorAll('select')[0].focus()")
        visit.wait_for(f"{options}.length === 3")
        assert not visit.evaluate("document.querySelector('#add').hidden")
        assert visit.evaluate("document.querySelector('#about').textContent").startswith("3 models")
        engine.unload_adapter("health")
        visit.evaluate("document.querySelectorAll('select')[1].focus()")
        visit.wait_for(f"{options}.length === 2")
        assert [column["model"] for column in columns(visit)] == [tiny_model.name, tiny_model.name]
        assert_whole_and_private(visit, server.url)
    engine.close()
    engine.join()


@in_browser
@pytest.mark.parametrize("width", [375, 1280])
def test_adapter_of_a_label_task_shows_its_labels(
    browser: Browser, tiny_model: Path, tmp_path: Path, width: int
) -> None:
    urgency = LabelTask("urgency", ("no", "yes"), "Is this urgent?")
    folder = make_adapter(tmp_path / "urgency", tiny_model, 7, quantization="none", std=0.1, label_tasks=[urgency])
    engine = open_engine([ServeTarget("urgency", folder)])
    with running(engine) as server:
        visit = open_page(browser, server.url, width=width)
        fill(visit, first="The pump is broken.", length=4)
        visit.press("Enter", control=True)
        visit.wait_for(DONE)
        asked = {"model": "urgency", "input": ["The pump is broken."]}
        expected = server.ask("POST", "/v1/classify", asked).data["data"][0]["probs"]
        base, adapter = columns(visit)
        assert base["shares"] == {}
        assert {label: float(share) for label, share in adapter["shares"].items()} == pytest.approx(expected)
        assert_whole_and_private(visit, server.url)
    engine.close()
    engine.join()


@in_browser
def test_escape_stops_the_answers_and_the_server(
    browser: Browser, make_engine: Callable[..., Engine], loaded: LoadedModel
) -> None:
    brake = Brake(loaded)
    with running(make_engine()) as server:
        visit = open_page(browser, server.url)
        fill(visit, first="Did profit rise?", length=400)
        visit.press("Enter", control=True)
        assert brake.reached.wait(30)
        assert columns(visit)[0]["text"] == ""
        visit.press("Escape")
        visit.wait_for("document.querySelector('#status').textContent.includes('incomplete')")
        assert columns(visit)[0]["text"] == "Stopped."
        assert visit.evaluate("document.querySelector('#stop').hidden")
        brake.released.set()
        fill(visit, length=2)
        visit.press("Enter", control=True)
        visit.wait_for(DONE)
    assert brake.steps < 50


@in_browser
def test_error_of_the_server_is_shown_where_the_answer_would_be(browser: Browser, server: Running) -> None:
    visit = open_page(browser, server.url)
    fill(visit, first="Did profit rise?", length=100_000)
    visit.press("Enter", control=True)
    visit.wait_for("document.querySelector('#status').textContent === '2 of 2 answers are incomplete.'")
    assert all("100000" in column["text"] for column in columns(visit))
    assert visit.evaluate(FAINT) == []


@in_browser
def test_key_is_asked_for_and_kept_in_memory_only(browser: Browser, compared: AnyEngine) -> None:
    with running(compared, ALICE) as server:
        visit = browser.open(f"{server.url}/", width=375, height=800)
        visit.wait_for("!document.querySelector('#access').hidden")
        assert visit.evaluate(FOCUS) == "key"
        fill(visit, key="wrong")
        visit.press("Enter")
        visit.wait_for("document.querySelector('#status').textContent === 'The server does not accept this key.'")
        assert visit.evaluate(f"[{FOCUS}, document.querySelector('#key').value]") == ["key", ""]
        fill(visit, key=KEY)
        visit.press("Enter")
        visit.wait_for(READY)
        fill(visit, first="Did profit rise?", length=4)
        visit.press("Enter", control=True)
        visit.wait_for(DONE)
        kept = "[localStorage.length, sessionStorage.length, document.cookie, document.documentElement.outerHTML.includes(KEY)]"
        assert visit.evaluate(kept.replace("KEY", json.dumps(KEY))) == [0, 0, "", False]
        assert not any(KEY in each for each in visit.requests)
        assert visit.evaluate(OVERFLOW) <= 0


@contextmanager
def serving_encoder(folder: Path, head: Head) -> Iterator[Running]:
    encoder = write_encoder(folder / "bert", "bert")
    adapters = [write_encoder_adapter(folder / name, encoder, head, seed) for seed, name in enumerate(("one", "two"))]
    engine = open_engine([ServeTarget(path.name, path) for path in adapters])
    try:
        with running(engine) as server:
            yield server
    finally:
        engine.close()
        engine.join()


@in_browser
@pytest.mark.parametrize("head", [NEWS, TOPICS], ids=["one label", "several labels"])
def test_encoders_show_a_bar_per_label(browser: Browser, tmp_path: Path, head: Head) -> None:
    with serving_encoder(tmp_path, head) as server:
        visit = open_page(browser, server.url, width=375)
        fill(visit, first="profit rose")
        visit.press("Enter", control=True)
        visit.wait_for(DONE)
        for column, name in zip(columns(visit), ("one", "two"), strict=True):
            answer = server.ask("POST", "/v1/classify", {"model": name, "input": "profit rose"}).data
            assert column["model"] == name
            assert {label: float(share) for label, share in column["shares"].items()} == answer["data"][0]["probs"]
            assert column["figures"]["tokens"] == str(answer["usage"]["total_tokens"])
        assert not visit.evaluate("document.querySelector('#settings').checkVisibility()")
        assert_whole_and_private(visit, server.url)


@in_browser
def test_answer_is_marked_in_its_context(browser: Browser, tmp_path: Path) -> None:
    context = "🏦 The bank raised its outlook after profit rose."
    with serving_encoder(tmp_path, ANSWERS) as server:
        visit = open_page(browser, server.url)
        fill(visit, first="what rose?", second=context)
        visit.press("Enter", control=True)
        visit.wait_for(DONE)
        answer = server.ask("POST", "/v1/classify", {"model": "one", "input": [["what rose?", context]]}).data
        marks = visit.evaluate("[...document.querySelectorAll('mark')].map(mark => mark.textContent)")
        assert marks[0] == answer["data"][0]["answer"] != ""
        assert visit.evaluate("document.querySelector('.quote').textContent") == context
        assert_whole_and_private(visit, server.url)


EVIL = "</div><img src=x onerror='window.harm = 1'><script>window.harm = 1</script>"


class Hostile(BaseHTTPRequestHandler):
    """Serves the page, and answers in markup whatever it is asked."""

    def do_GET(self) -> None:
        page = page_response()
        card = {"id": EVIL, "parent": EVIL, "root": EVIL, "task": "generation"}
        if self.path == "/":
            self.reply(bytes(page.body), dict(page.headers))
        else:
            self.reply(json.dumps({"data": [card]}).encode(), {"Content-Type": "application/json"})

    def do_POST(self) -> None:
        chunk = {"choices": [{"delta": {"content": EVIL}, "finish_reason": "stop"}]}
        self.reply(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode(), {"Content-Type": "text/event-stream"})

    def reply(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@in_browser
def test_text_of_a_model_is_never_markup(browser: Browser) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        visit = open_page(browser, f"http://127.0.0.1:{site.server_address[1]}")
        fill(visit, first="Hello")
        visit.press("Enter", control=True)
        visit.wait_for(DONE)
        [column] = columns(visit)
        images, harm = visit.evaluate("[document.querySelectorAll('img').length, window.harm]")
        markup = visit.evaluate("(() => { try { document.body.innerHTML = '<b>'; } catch { return 'refused'; } })()")
        elsewhere = visit.evaluate("fetch('http://127.0.0.1:9/').catch(() => 'refused')")
        site.shutdown()
        thread.join()
    assert (column["text"], column["model"]) == (EVIL, EVIL)
    assert (images, harm, markup, elsewhere) == (0, None, "refused", "refused")
