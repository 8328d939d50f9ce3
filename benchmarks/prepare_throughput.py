"""Documents per second and memory of `slmtune prepare`, datatrove and text-dedup on the same invented documents.

    python benchmarks/prepare_throughput.py [--documents 10000,100000,1000000] [--compare-at 10000]
        [--datatrove PYTHON] [--text-dedup PYTHON] [--workers 2] [--folder FOLDER]

The other tools need separate environments, because they require other versions of the libraries:
    python3 -m venv A && A/bin/pip install "datatrove[io,processing]==0.10.1" spacy
    python3 -m venv B && B/bin/pip install text-dedup==0.4.0
Without --datatrove and --text-dedup, only slmtune is measured.

A document has about 100 words of an invented vocabulary, whose frequencies fall as 1/rank. Every fifth document is a
planted near-duplicate: another document with one word changed, a sentence added at its end, or different case and
punctuation (Jaccard index of word 5-grams at least 0.86). All tools use 5-grams, 128 permutations and the same number of
processes. slmtune runs all its default steps; datatrove repairs with ftfy and deduplicates, with its own splitter (spacy)
and with a faster one; text-dedup (with xxh3, its faster hash) only deduplicates.

Prints seconds, documents per second, peak resident memory (sampled, and summed over the process and its children;
shared pages count for each), documents removed, the share of planted documents that were removed, and the share of
removed documents that were planted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset as ds

HERE = Path(__file__).parent
BLOCK = 2500  # documents drawn at a time
VOCABULARY, WORDS = 40_000, 100
PLANTED = 5  # every fifth document
Texts = dict[bytes, int]  # digest of a text -> its document


@dataclass(frozen=True)
class Measurement:
    """One run of one tool."""

    tool: str
    documents: int
    seconds: float
    peak: int  # bytes
    kept: set[int]

    def line(self) -> str:
        """A row of the table."""
        removed = self.documents - len(self.kept)
        pairs = [(n, origin(n)) for n in range(PLANTED - 1, self.documents, PLANTED)]
        # Either document of a planted pair may be removed, but only one of them.
        hits = sum((one not in self.kept) != (other not in self.kept) for one, other in pairs)
        return (
            f"{self.tool:<18} {self.documents:>9,} {self.seconds:>8.1f} {self.documents / self.seconds:>9,.0f}"
            f" {self.peak / 2**30:>7.2f} {removed:>8,} {hits / len(pairs):>8.4f} {hits / max(removed, 1):>9.4f}"
        )


def vocabulary() -> list[str]:
    """Invented words; the frequent ones are short."""
    draw = np.random.default_rng(0)
    syllables = [
        first + vowel + last for first in "bdfgklmnprstvz" for vowel in "aeiou" for last in ("", "n", "r", "s")
    ]
    words: dict[str, None] = {}
    while len(words) < VOCABULARY:
        count = 1 + (len(words) > 60) + (len(words) > 2000) + int(draw.integers(0, 2))
        words["".join(draw.choice(syllables, count))] = None
    return list(words)


def origin(number: int) -> int:
    """The document that a planted one repeats: one of the neighbouring block that is not planted, and repeated only once."""
    block, place = divmod(number, BLOCK)
    return (block ^ 1) * BLOCK + place - 1 - place % (PLANTED - 1)


def blocks(count: int) -> Iterator[list[str]]:
    """The documents, BLOCK at a time; the same for every count."""
    words = np.array(vocabulary(), dtype=object)
    edges = np.cumsum(1 / np.arange(1, VOCABULARY + 1))

    def originals(block: int) -> list[list[str]]:
        draw = np.random.default_rng([1, block])
        lengths = draw.integers(WORDS - 20, WORDS + 21, BLOCK)
        ranks = np.searchsorted(edges, draw.random(int(lengths.sum())) * edges[-1])
        return [part.tolist() for part in np.split(words[ranks], np.cumsum(lengths)[:-1])]

    for pair in range(0, count // BLOCK, 2):
        first, second = originals(pair), originals(pair + 1)
        for block, own, other in ((pair, first, second), (pair + 1, second, first)):
            texts = [sentences(row) for row in own]
            for place in range(PLANTED - 1, BLOCK, PLANTED):
                number = block * BLOCK + place
                texts[place] = alter(other[origin(number) % BLOCK], number)
            yield texts


def sentences(words: list[str], length: int = 12) -> str:
    """Words as prose."""
    return " ".join(" ".join(words[at : at + length]).capitalize() + "." for at in range(0, len(words), length))


def alter(words: list[str], number: int) -> str:
    """A text with nearly the same words: each of three kinds in turn."""
    kind, mark = number // PLANTED % 3, f"{number:x}".translate(str.maketrans("0123456789", "ghijklmnop"))
    if kind == 0:
        at = number % len(words)
        return sentences([*words[:at], mark, *words[at + 1 :]])
    if kind == 1:
        return f"{sentences(words)} {sentences([mark, *words[:5]])}"
    return sentences(words, 7 + number % 4).upper() + f" {mark}!"


def write(folder: Path, count: int, parts: int) -> Texts:
    """Write the documents as JSONL to several files, because datatrove gives each worker whole files."""
    folder.mkdir(parents=True)
    numbers: Texts = {}
    files = [(folder / f"part-{part:02}.jsonl").open("w") for part in range(parts)]
    number = 0
    for block, texts in enumerate(blocks(count)):
        for text in texts:
            files[block % parts].write(json.dumps({"id": f"d{number}", "text": text}) + "\n")
            numbers[digest(text)] = number
            number += 1
    for file in files:
        file.close()
    assert len(numbers) == count, "two documents are equal"
    return numbers


def digest(text: str) -> bytes:
    """The digest by which a document is recognised in a result."""
    return hashlib.blake2b(text.encode(), digest_size=12).digest()


def run(tool: str, command: list[str], log: Path, environment: dict[str, str]) -> tuple[float, int]:
    """Run a command, and return its seconds and the peak bytes of it and its children."""
    peak = 0
    started = time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **environment})
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            root = psutil.Process(process.pid)
            while not done.wait(0.1):
                peak = max(peak, resident(root))

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
    if code:
        raise SystemExit(f"{tool} ended with {code}:\n{log.read_text()[-3000:]}")
    return seconds, peak


def resident(root: psutil.Process) -> int:
    """Resident bytes of a process and its children."""
    total = 0
    try:
        for process in [root, *root.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        pass
    return total


def kept_in(folder: Path, form: str, numbers: Texts) -> set[int]:
    """The documents in the files of a result."""
    documents: set[int] = set()
    for batch in batches(folder, form):
        if "messages" in batch.schema.names:
            texts = [turns[-1]["content"] for turns in batch.column("messages").to_pylist()]
        else:
            texts = batch.column("text").to_pylist()
        documents.update(numbers[digest(text)] for text in texts)
    return documents


def batches(folder: Path, form: str) -> Iterator[pa.RecordBatch]:
    """The rows of all files of one format, in batches."""
    for file in sorted(folder.rglob(f"*.{form}")):
        if form == "arrow":  # streams, as the datasets library saves them
            yield from pa.ipc.open_stream(file)
        else:
            yield from ds.dataset(file, format={"jsonl": "json"}.get(form, form)).to_batches()


def commands(
    arguments: argparse.Namespace, source: Path, out: Path, compare: bool
) -> Iterator[tuple[str, list[str], Path, str]]:
    """The name, the command, and the folder and format of the result, for each tool."""
    workers = str(arguments.workers)
    slmtune = [
        sys.executable,
        "-m",
        "finetune",
        "prepare",
        "--source",
        str(source),
        "--output-dir",
        str(out / "corpus"),
    ]
    yield "slmtune", [*slmtune, "--workers", workers, *arguments.slmtune.split()], out / "corpus", "parquet"
    if compare and arguments.datatrove:
        script = [arguments.datatrove, str(HERE / "parts" / "datatrove_minhash.py"), str(source)]
        for splitter in ("spacy", "blanks"):
            there = out / splitter
            yield f"datatrove {splitter}", [*script, str(there), workers, workers, splitter], there / "kept", "jsonl"
    if compare and arguments.text_dedup:
        there = out / "text-dedup"
        files = ["--path", "json", "--data_files", f"{source}/*.jsonl", "--split", "train", "--column", "text"]
        places = ["--cache_dir", str(out / "cache"), "--output", str(there), "--num_proc", workers]
        hashes = [
            "--ngram",
            "5",
            "--num_perm",
            "128",
            "--b",
            "16",
            "--r",
            "8",
            "--threshold",
            "0.8",
            "--hash_func",
            "xxh3",
        ]
        yield "text-dedup", [arguments.text_dedup, "-m", "text_dedup.minhash", *files, *places, *hashes], there, "arrow"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", default="10000,100000,1000000")
    parser.add_argument("--compare-at", type=int, default=10_000, help="largest number for the other tools")
    parser.add_argument("--datatrove", metavar="PYTHON")
    parser.add_argument("--text-dedup", metavar="PYTHON")
    parser.add_argument("--slmtune", default="", help="more arguments for slmtune prepare")
    parser.add_argument("--only", default="", help="beginnings of the names of the tools to run, separated by commas")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder")
    arguments = parser.parse_args()
    heads = ("tool", "documents", "seconds", "docs/s", "GiB", "removed", "planted", "precision")
    print("{:<18} {:>9} {:>8} {:>9} {:>7} {:>8} {:>8} {:>9}".format(*heads), flush=True)
    for count in map(int, arguments.documents.split(",")):
        if count % (2 * BLOCK):
            parser.error(f"--documents {count}: give a multiple of {2 * BLOCK}")
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            source = Path(folder, "documents")
            numbers = write(source, count, parts=2 * arguments.workers)
            rates: dict[str, float] = {}
            for tool, command, result, form in commands(arguments, source, Path(folder), count <= arguments.compare_at):
                if not tool.startswith(tuple(arguments.only.split(","))):
                    continue
                environment = {"OMP_NUM_THREADS": "1", "HF_HOME": f"{folder}/hub", "XDG_CACHE_HOME": f"{folder}/cache"}
                seconds, peak = run(tool, command, Path(folder, "log"), environment)
                print(Measurement(tool, count, seconds, peak, kept_in(result, form, numbers)).line(), flush=True)
                rates[tool] = count / seconds
                shutil.rmtree(result)
            for tool in rates:
                if tool != "slmtune" and "slmtune" in rates:
                    print(f"  slmtune is {rates['slmtune'] / rates[tool]:.1f} times as fast as {tool}")


if __name__ == "__main__":
    main()
