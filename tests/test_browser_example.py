"""The page in `examples/browser` predicts in a real browser what torch predicts, and talks to no other server."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import Model
from finetune.export import ExportRequest, export_artifact
from finetune.export.onnx.convert import FILES
from finetune.export.onnx.session import OnnxEncoder
from finetune.merge import MergeRequest, merge_adapter
from finetune.models.encoder_inputs import encode_texts
from finetune.models.heads import Head
from finetune.models.load import LoadedModel, load_merged
from finetune.recipe.options import ExportOptions, OnnxPrecision
from finetune.scoring.encoders import Labelling, predict

from .browser import CHROMIUM, FAINT, OVERFLOW, Browser, Visit
from .command import ROOT
from .encoders import NEWS, SHALLOW, TOPICS, write_encoder, write_encoder_adapter

NPM = shutil.which("npm")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and NPM), reason="no Chromium or no npm on this machine"),
]
UNREACHABLE = ("EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ENETUNREACH", "ENOTFOUND", "ETIMEDOUT")  # npm's error codes

TEXTS = [
    "profit rose",
    "Shares FELL,\tas costs grew.\nThe bank held capital!",
    "Café Zoë’s naïve coöperation – a “fiancée” in Łódź and İstanbul",
    "the bank 🏦📈 rose 👩‍👩‍👧 today 🇨🇭",
    "東京の銀行 profit 上がった, банк, مصرف",
    "[SEP] shares [CLS] <b>fell</b> & rose",
    "supercalifragilisticexpialidocious" * 4,
    "the bank raised its outlook after profit rose. " * 40,  # more than the 128 tokens that the model reads
]
READY = """
new Promise(resolve => {
  const wait = () => /^(Starting|Loading)/.test(status.textContent) ? setTimeout(wait, 20) : resolve(status.textContent);
  const status = document.querySelector("#status");
  wait();
})
"""
ANSWER = """
new Promise(resolve => {
  const result = document.querySelector("#result");
  new MutationObserver((_, observer) => {
    observer.disconnect();
    resolve({
      chosen: [...result.querySelectorAll(".chosen th")].map(each => each.textContent),
      shares: Object.fromEntries([...result.querySelectorAll("tbody tr")].map(row =>
        [row.querySelector("th").textContent, Number(row.querySelector("td").dataset.probability)])),
      notes: result.querySelector("p").textContent,
    });
  }).observe(result.querySelector("p"), {childList: true});
  document.querySelector("#text").value = TEXT;
  document.querySelector("button").click();
})
"""


class Site(ThreadingHTTPServer):
    """A folder on the loopback interface, served as `python -m http.server` does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        self.address = f"http://127.0.0.1:{self.server_address[1]}/"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A copy of the example with the libraries of its lock file, and its address."""
    folder = tmp_path_factory.mktemp("site")
    for file in (ROOT / "examples/browser").iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    words = ["npm", "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if any(code in done.stderr for code in UNREACHABLE):
        pytest.skip("the npm registry cannot be reached, and not all libraries are in npm's cache")
    assert done.returncode == 0, done.stderr
    with Site(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield folder, server.address
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


def export(head: Head, precision: OnnxPrecision, site: Path, folder: Path) -> LoadedModel:
    """Export a tiny encoder to where the page looks for it; returns the same weights, in torch or, in 8 bits, onnxruntime."""
    adapter = write_encoder_adapter(folder / "adapter", write_encoder(folder / "bert", "bert", **SHALLOW["bert"]), head)
    merge_adapter(MergeRequest(adapter, folder / "model"))
    options = ExportOptions(format="onnx", quantization=precision)
    export_artifact(ExportRequest(folder / "model", site / "model", options, overwrite=True))
    loaded = load_merged(Model.open(folder / "model"))
    if precision == "f32":
        return loaded
    return replace(loaded, model=OnnxEncoder(site / "model" / FILES[precision], loaded.model.config))


def answers(visit: Visit) -> list[dict[str, Any]]:
    return [visit.evaluate(ANSWER.replace("TEXT", json.dumps(text))) for text in TEXTS]


def answers_here(loaded: LoadedModel) -> list[Labelling]:
    inputs = [encode_texts(loaded.tokenizer, text, None, loaded.context) for text in TEXTS]
    rows = predict(loaded, inputs, [None] * len(TEXTS), batch_size=1)
    return [row for row in rows if isinstance(row, Labelling)]


def assert_same(rows: list[dict[str, Any]], expected: list[Labelling], within: float) -> None:
    for row, theirs in zip(rows, expected, strict=True):
        assert row["shares"] == pytest.approx(theirs.probabilities, abs=within)
        assert sorted(row["chosen"]) == sorted(theirs.labels)


def assert_whole_and_private(visit: Visit, address: str) -> None:
    """All can be read, nothing but files of the page was asked for, and nothing went wrong."""
    assert visit.evaluate(OVERFLOW) <= 0
    assert visit.evaluate(FAINT) == []
    assert [each for each in visit.requests if not each.startswith((address, "data:,"))] == []
    assert not any("?" in each for each in visit.requests)
    assert visit.errors == []


def test_page_predicts_what_torch_predicts(site: tuple[Path, str], browser: Browser, tmp_path: Path) -> None:
    folder, address = site
    loaded = export(NEWS, "f32", folder, tmp_path)
    visit = browser.open(address, width=390, height=844)
    assert visit.evaluate(READY) == "Ready. Labels: bearish, neutral, bullish."
    rows = answers(visit)
    assert_same(rows, answers_here(loaded), within=1e-3)
    assert ["only its first 128 tokens count" in row["notes"] for row in rows] == [False] * 7 + [True]
    assert_whole_and_private(visit, address)


def test_page_runs_weights_in_8_bits_and_shows_several_labels(
    site: tuple[Path, str], browser: Browser, tmp_path: Path
) -> None:
    folder, address = site
    loaded = export(TOPICS, "int8", folder, tmp_path)
    visit = browser.open(address, width=1280, height=900, dark=True)
    assert visit.evaluate(READY) == "Ready. Labels: rates, stocks, bonds."
    assert_same(answers(visit), answers_here(loaded), within=1e-2)  # activations are rounded to 8 bits, too
    assert_whole_and_private(visit, address)


def test_page_says_what_is_missing(site: tuple[Path, str], browser: Browser) -> None:
    folder, address = site
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)
    missing = browser.open(address, width=390, height=844).evaluate(READY)
    assert missing.startswith("There is no model/manifest.json beside this page. Export a model with: slmtune export")
    model.mkdir()
    (model / "manifest.json").write_text('{"files": {"onnx/model.onnx": ""}}', "utf-8")
    (model / "config.json").write_text('{"architectures": ["BertForQuestionAnswering"]}', "utf-8")
    other = browser.open(address, width=390, height=844).evaluate(READY)
    assert other == "The model in the folder model does not classify texts. Export one whose rows have labels."


def test_page_may_not_talk_to_another_server(site: tuple[Path, str], browser: Browser) -> None:
    visit = browser.open(site[1], width=390, height=844)
    visit.evaluate(READY)
    another = f"http://localhost:{site[1].split(':')[-1]}"
    refusal = "addEventListener('securitypolicyviolation', event => resolve(event.effectiveDirective))"
    attempt = f"new Promise(resolve => {{ {refusal}; fetch({another!r}).catch(() => {{}}) }})"
    assert visit.evaluate(attempt) == "connect-src"
