"""Take the pictures of the README: the report and the corpus page of a quickstart, as Chromium shows them.

python -m docs.make_pictures                          # runs the quickstart first: a few minutes
python -m docs.make_pictures --from runs/quickstart   # takes an earlier one
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from tests.browser import CHROMIUM, Browser

TARGET = Path(__file__).with_name("images")
PAGES = {"eval-report.png": "eval/report.html", "corpus-page.png": "corpus/corpus.html"}
WIDTH, HEIGHT, SCALE = 800, 1280, 1.5
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
    """Write the visible top of each page in `run` as a PNG file, and print its size."""
    TARGET.mkdir(exist_ok=True)
    with TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        for name, page in PAGES.items():
            picture = browser.open(run / page, width=WIDTH, height=HEIGHT, scale=SCALE).take_picture()
            image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLORS)
            image.save(TARGET / name, optimize=True)
            print(f"{name}: {(TARGET / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
