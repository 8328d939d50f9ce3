"""Does `slmtune serve` stand a crowd? Many clients at once: good requests, malformed ones, clients that leave, bad adapters.

    python benchmarks/serve_load.py [--model FOLDER] [--adapter DIR] [--engine transformers] [--requests 2000] [--clients 16]
        [--bad-adapters 50] [--tokens 32] [--words 200] [--growth 0.05] [--max-memory SIZE]
        [--json FILE]

Of the requests, 70 % are well-formed, of mixed sizes, whole and as streams; 20 % are abandoned, and 10 % are malformed.
Meanwhile an administrator loads adapters that cannot be served. Without --model, a tiny model of random weights answers.

Prints, and ends with exit code 1 unless:
  5xx                none
  unanswered         no well-formed request without a complete answer; one that is told to come later (429) does so
  changed            no greedy answer other than the one to the same request before the load
  admitted           no malformed request and no bad adapter was accepted
  memory             resident memory of the server grew by less than --growth over the second half
  answers again      a request sent after the load is answered within 5 seconds
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARTS = Path(__file__).parent / "parts"
PATIENCE = 300.0  # seconds
WITHIN = 5.0  # seconds to an answer after the load
SAMPLES = 8  # well-formed requests whose answers are known before the load
CHAT, COMPLETIONS, LOAD = "/v1/chat/completions", "/v1/completions", "/v1/load_lora_adapter"
ADMIN_KEY = "key-of-the-administrator"
WORDS = "profit loss order merger strike rule debt export patent share bank rate growth market price report".split()
JSON = {"Content-Type": "application/json"}
ABANDONED, MALFORMED = 0.2, 0.1


@dataclass
class Figures:
    """What the load did."""

    statuses: Counter[str] = field(default_factory=Counter)  # "good 200" …
    unanswered: int = 0
    changed: int = 0
    admitted: int = 0
    half_bytes: int = 0
    end_bytes: int = 0
    seconds: float = 0
    again_seconds: float = 0

    @property
    def server_errors(self) -> int:
        """The number of answers with a status of 500 or above."""
        return sum(count for name, count in self.statuses.items() if name.split()[1] >= "500")

    @property
    def growth(self) -> float:
        """The share by which memory grew over the second half."""
        return self.end_bytes / self.half_bytes - 1

    def problems(self, growth: float) -> list[str]:
        """The figures that are not as they should be."""
        bars = {
            "5xx": self.server_errors,
            "unanswered": self.unanswered,
            "changed": self.changed,
            "admitted": self.admitted,
            "memory": self.growth >= growth,
            "answers again": self.again_seconds > WITHIN,
        }
        return [name for name, is_missed in bars.items() if is_missed]


@dataclass(frozen=True)
class Request:
    """A well-formed request."""

    path: str
    body: dict[str, Any]

    @property
    def key(self) -> str:
        """What determines its answer."""
        return json.dumps([self.path, {name: value for name, value in self.body.items() if name != "stream"}])


class Crowd:
    """The clients of a server. `samples` are requests, and `answers` what the server said to each before the load."""

    def __init__(self, address: str, samples: list[Request], tokens: int) -> None:
        self.address, self.samples, self.tokens = address, samples, tokens
        self.figures = Figures()
        self.answers: dict[str, str] = {}
        self._counting = threading.Lock()
        self._ended = 0

    def connect(self) -> http.client.HTTPConnection:
        """A new connection."""
        return http.client.HTTPConnection(self.address, timeout=PATIENCE)

    def send(
        self, kind: str, path: str, data: bytes, headers: dict[str, str], method: str = "POST"
    ) -> tuple[int, bytes]:
        """Status and body of an answer; its status is counted."""
        connection = self.connect()
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            status, text = response.status, response.read()
        finally:
            connection.close()
        with self._counting:
            self.figures.statuses[f"{kind} {status}"] += 1
        return status, text

    def read_memory(self) -> int:
        """The resident memory of the server in bytes."""
        _, text = self.send("metrics", "/metrics", b"", {}, "GET")
        [figure] = [line for line in text.decode().splitlines() if line.startswith("process_resident_memory_bytes ")]
        return int(float(figure.split()[1]))

    def ask(self, request: Request) -> str | None:
        """The text of a complete answer, or None."""
        until = time.monotonic() + PATIENCE
        status, text = 429, b""
        while status == 429 and time.monotonic() < until:
            status, text = self.send("good", request.path, json.dumps(request.body).encode(), JSON)
            if status == 429:
                time.sleep(0.1)
        if status != 200:
            return None
        return read_stream(text) if request.body["stream"] else read_choice(json.loads(text)["choices"])

    def serve_one(self, number: int, total: int) -> None:
        """One request of the load, of a kind that its number determines."""
        chance = random.Random(number)
        kind = chance.random()
        if kind < MALFORMED:
            self.send_malformed(chance)
        elif kind < MALFORMED + ABANDONED:
            self.abandon(chance)
        else:
            self.check(chance.choice(self.samples), is_stream=chance.random() < 0.5)
        with self._counting:
            self._ended += 1
            is_half = self._ended == total // 2
        if is_half:
            self.figures.half_bytes = self.read_memory()

    def check(self, sample: Request, *, is_stream: bool) -> None:
        """Send a well-formed request, and compare its answer with the one before the load."""
        answer = self.ask(Request(sample.path, sample.body | {"stream": is_stream}))
        with self._counting:
            self.figures.unanswered += answer is None
            self.figures.changed += answer is not None and answer != self.answers[sample.key]

    def abandon(self, chance: random.Random) -> None:
        """Send a request, and leave: at once, or when the answer begins."""
        sample = chance.choice(self.samples)
        body = sample.body | {"stream": chance.random() < 0.5, "max_tokens": self.tokens * 4}
        connection = self.connect()
        try:
            connection.request("POST", sample.path, json.dumps(body), JSON)
            if body["stream"] and chance.random() < 0.5:
                connection.getresponse().readline()
        finally:
            connection.close()
        with self._counting:
            self.figures.statuses["abandoned 0"] += 1

    def send_malformed(self, chance: random.Random) -> None:
        """Send what no server should accept."""
        body = chance.choice(self.samples).body
        method, path, data, headers = chance.choice(
            [
                ("POST", CHAT, b"{", JSON),
                ("POST", CHAT, b"[" * 10_000, JSON),
                ("POST", CHAT, json.dumps({"model": "base"}).encode(), JSON),
                ("POST", CHAT, json.dumps(body | {"model": "absent"}).encode(), JSON),
                ("POST", CHAT, json.dumps(body | {"n": 10**6}).encode(), JSON),
                ("POST", CHAT, json.dumps(body | {"max_tokens": -1}).encode(), JSON),
                ("POST", CHAT, json.dumps(body | {"temperature": float("nan")}).encode(), JSON),
                ("POST", CHAT, json.dumps(body).encode(), {"Content-Type": "text/plain"}),
                ("POST", CHAT, b"x" * (2 << 20), JSON),
                ("POST", "/v1/absent", b"{}", JSON),
                ("PUT", CHAT, b"{}", JSON),
            ]
        )
        status, _ = self.send("malformed", path, data, headers, method)
        with self._counting:
            self.figures.admitted += status < 400

    def load_bad(self, names: list[str], count: int) -> None:
        """Load adapters that cannot be served."""
        for number in range(count):
            name = names[number % len(names)]
            data = json.dumps({"lora_name": f"bad{number}", "lora_path": name}).encode()
            status, _ = self.send("bad-adapter", LOAD, data, JSON | {"Authorization": f"Bearer {ADMIN_KEY}"})
            with self._counting:
                self.figures.admitted += status < 400


def read_choice(choices: list[dict[str, Any]]) -> str:
    """The text of a whole answer."""
    message = choices[0].get("message", choices[0])
    return str(message.get("content", message.get("text")))


def read_stream(text: bytes) -> str | None:
    """The text of a stream, or None if it did not end as it should."""
    *events, last = text.decode().strip().split("\n\n")
    if last != "data: [DONE]":
        return None
    pieces = []
    for event in events:
        content = json.loads(event.removeprefix("data: "))
        if "error" in content:
            return None
        for choice in content["choices"]:
            pieces.append(choice.get("text") or choice.get("delta", {}).get("content") or "")
    return "".join(pieces)


def make_samples(models: list[str], tokens: int, words: int) -> list[Request]:
    """Requests of mixed sizes, greedy, by turns to each model."""
    chance = random.Random(0)
    samples = []
    for number in range(SAMPLES):
        text = " ".join(chance.choices(WORDS, k=1 + number * words // SAMPLES))
        body: dict[str, Any] = {"model": models[number % len(models)], "temperature": 0, "stream": False}
        body["max_tokens"] = 1 + number * tokens // SAMPLES
        if number % 3:
            samples.append(Request(CHAT, body | {"messages": [{"role": "user", "content": text}]}))
        else:
            samples.append(Request(COMPLETIONS, body | {"prompt": text}))
    return samples


def make_bad_adapters(root: Path, adapter: Path | None) -> list[str]:
    """Folders that are no adapters, or damaged ones; returns their names and others that do not exist."""
    (root / "empty").mkdir(parents=True)
    (root / "pickle").mkdir()
    (root / "pickle" / "adapter_model.bin").write_bytes(b"\x80\x04N.")
    (root / "pickle" / "adapter_config.json").write_text("{}", "utf-8")
    if adapter is not None:
        shutil.copytree(adapter, root / "damaged")
        weights = root / "damaged" / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    return [*sorted(path.name for path in root.iterdir()), "absent", "../outside"]


@contextmanager
def running(arguments: argparse.Namespace, folder: Path) -> Iterator[str]:
    """The address of a server."""
    keys = folder / "keys"
    keys.write_text(ADMIN_KEY, "utf-8")
    targets = [f"base={arguments.model}"] + ([f"tuned={arguments.adapter}"] if arguments.adapter else [])
    command = [sys.executable, "-m", "finetune", "serve", *targets, "--port", "0", "--json", "--quiet"]
    command += ["--engine", arguments.engine, "--adapter-dir", str(folder / "adapters"), "--admin-key-file", str(keys)]
    command += ["--max-memory", arguments.max_memory] if arguments.max_memory else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(process.wait())
        yield json.loads(line)["url"].partition("://")[2]
        if process.poll() is not None:
            raise SystemExit("The server ended during the load")
    finally:
        process.terminate()
        process.wait()


def measure(address: str, arguments: argparse.Namespace, bad: list[str]) -> Figures:
    """Put a server under load."""
    models = ["base", "tuned"] if arguments.adapter else ["base"]
    samples = make_samples(models, arguments.tokens, arguments.words)
    crowd = Crowd(address, samples, arguments.tokens)
    for sample in samples:
        answer = crowd.ask(sample)
        if answer is None:
            raise SystemExit("The server did not answer before the load")
        crowd.answers[sample.key] = answer
    started = time.perf_counter()
    with ThreadPoolExecutor(arguments.clients + 1) as pool:
        loads = pool.submit(crowd.load_bad, bad, arguments.bad_adapters)
        requests = [pool.submit(crowd.serve_one, number, arguments.requests) for number in range(arguments.requests)]
        for future in (*requests, loads):
            future.result()
    figures = crowd.figures
    ended = time.perf_counter()
    crowd.check(samples[0], is_stream=False)
    figures.seconds, figures.again_seconds = ended - started, time.perf_counter() - ended
    figures.end_bytes = crowd.read_memory()
    return figures


def describe(figures: Figures) -> str:
    """The figures as text."""
    half, end = figures.half_bytes / 2**20, figures.end_bytes / 2**20
    return "\n".join(
        [
            *(f"{name:<18} {count:>6}" for name, count in sorted(figures.statuses.items())),
            f"5xx {figures.server_errors}, unanswered {figures.unanswered}, changed {figures.changed}, "
            f"admitted {figures.admitted}",
            f"memory {half:.0f} MiB at half time, {end:.0f} MiB at the end, {figures.growth:+.1%}",
            f"load {figures.seconds:.1f} s, answers again within {figures.again_seconds:.2f} s",
        ]
    )


def main() -> None:
    """Run the load, and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--max-memory")
    parser.add_argument("--engine", default="transformers")
    for name, default in {"requests": 2000, "clients": 16, "bad-adapters": 50, "tokens": 32, "words": 200}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--growth", type=float, default=0.05)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if arguments.model is None:
            arguments.model = str(folder / "tiny")
            subprocess.run([sys.executable, PARTS / "random_model.py", "tiny", arguments.model], check=True)
        bad = make_bad_adapters(folder / "adapters", arguments.adapter)
        with running(arguments, folder) as address:
            figures = measure(address, arguments, bad)
    problems = figures.problems(arguments.growth)
    print(describe(figures), f"missed: {', '.join(problems) or 'nothing'}", sep="\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(vars(figures) | {"missed": problems}, indent=2), "utf-8")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
