"""Take the pictures of the README and the guide: the pages of a quickstart and of its server, as Chromium shows them.

python -m docs.make_pictures                          # runs the quickstart first: a few minutes
python -m docs.make_pictures --from runs/quickstart   # takes an earlier one
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from tests.browser import CHROMIUM, Browser, Visit

TARGET = Path(__file__).with_name("images")
PAGES = {"eval-report.png": "eval/report.html", "corpus-page.png": "corpus/corpus.html"}
SERVER = "side-by-side.png"
WIDTH, HEIGHT, SCALE = 800, 1280, 1.5
WIDE, LOW = 1180, 700  # the page of the server
PROMPT = "Profit rose by a third, as sales in Asia grew."
SYSTEM = "Is this news bearish, neutral or bullish for the investor?"
TOKENS = 48  # of the longest answer
COLORS = 64  # enough for text and a few fills, in a third of the bytes


def main() -> None:
    """Take one picture per page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--from", dest="run", type=Path, help="The workspace of a quickstart that has already run.")
    run = parser.parse_args().run
    if not CHROMIUM:
        sys.exit("There is no Chromium on this machine. Install one, for example with: apt-get install chromium")
    with TemporaryDirectory() as folder:
        if not run:
            subprocess.run([sys.executable, "-m", "finetune", "quickstart", "--run-dir", folder], check=True)
            run = Path(folder) / "quickstart"
        take_pictures(run.resolve())


def take_pictures(run: Path) -> None:
    """Write a PNG file of the visible top of each page in `run`, and of the page of a server with its adapter."""
    TARGET.mkdir(exist_ok=True)
    with TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        for name, page in PAGES.items():
            write_picture(name, browser.open(run / page, width=WIDTH, height=HEIGHT, scale=SCALE))
        words = [sys.executable, "-m", "finetune", "serve", f"finance={run / 'adapter'}", "--port", "0"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                url = server.stdout.readline().rpartition(" at ")[2].strip().removesuffix("/v1")
                write_picture(SERVER, ask(browser.open(f"{url}/", width=WIDE, height=LOW, scale=SCALE)))
            finally:
                server.terminate()


def ask(visit: Visit) -> Visit:
    """Ask the models on the page of a server, and wait for their answers."""
    visit.wait_for("!document.querySelector('#question').hidden")
    for field, value in {"first": PROMPT, "second": SYSTEM, "length": str(TOKENS)}.items():
        visit.evaluate(f"document.querySelector('#{field}').value = {json.dumps(value)}")
    visit.press("Enter", control=True)
    visit.wait_for("document.querySelector('#status').textContent === 'Done.'")
    return visit


def write_picture(name: str, visit: Visit) -> None:
    """Write what is visible as a PNG file, and print its size."""
    image = Image.open(io.BytesIO(visit.take_picture())).convert("RGB").quantize(COLORS)
    image.save(TARGET / name, optimize=True)
    print(f"{name}: {(TARGET / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
