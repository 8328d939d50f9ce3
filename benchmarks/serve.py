"""Throughput of servers of one model on this machine: `slmtune serve`, `transformers serve` and llama.cpp's server, in turn.

    python benchmarks/serve.py [--model smollm2-135m] [--adapter DIR] [--adapters 8] [--gguf FILE] [--lora FILE]
        [--engines transformers,…] [--clients 1,4,16] [--tokens 48] [--requests 3] [--json FILE]

Each client sends --requests chat requests, one after the other, with different prompts, greedy, as streams of at most --tokens
tokens. slmtune also serves an adapter under one name, and copies of it under --adapters names, among which the clients take
turns: --adapter, or else one of random matrices that are so small that its answers are as long as those of the base model.
llama.cpp's server takes part with --gguf, a GGUF file of the same model, and once more with --lora, an adapter as a GGUF file,
which it holds --adapters times and of which each request selects one. `transformers serve` has no adapters.

Prints for each server the seconds until it was ready, and for each number of clients:
  tokens/s  tokens of all answers, counted with the model's tokenizer, by the seconds from the first request to the last answer
  first     95th percentile of the milliseconds to the first text
and the ratios of tokens/s with the most clients. A request that fails ends the benchmark.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parts.child import run

PARTS = Path(__file__).parent / "parts"
PATIENCE = 600.0  # seconds, for a server to be ready and for an answer
SUBJECTS = ("profits", "orders", "a merger", "a strike", "new rules", "debts", "exports", "a patent")
QUESTION = "Write a short report about {subject} of company number {number} in {year}. Say what happened, and why."


@dataclass(frozen=True)
class Entrant:
    """A server: its command, to which a port is appended, the models that clients name, and fields of each request."""

    name: str
    command: list[str]
    models: list[str]
    fields: Callable[[int], dict[str, Any]] = field(default=lambda number: {})


@dataclass(frozen=True)
class Sample:
    """An answer and the seconds to its first text."""

    text: str
    first: float


@dataclass(frozen=True)
class Figures:
    """What a number of clients measured."""

    clients: int
    tokens_per_second: float
    first_p95: float


def enter(arguments: argparse.Namespace, folder: str, adapter: str) -> list[Entrant]:
    """The servers that take part."""
    slmtune = [sys.executable, "-m", "finetune", "serve", "--quiet"]
    entrants = []
    for engine in arguments.engines.split(","):
        flags = ["--engine", engine] if engine else []
        name = f"slmtune {engine}".strip()
        entrants.append(Entrant(name, [*slmtune, *flags, f"base={arguments.model}"], ["base"]))
        for count in (1, arguments.adapters):
            names = [f"adapter{number}" for number in range(count)]
            targets = [f"{each}={adapter}" for each in names]
            entrants.append(Entrant(f"{name}, {count} adapters", [*slmtune, *flags, *targets], names))
    transformers = [str(Path(sys.executable).with_name("transformers")), "serve", folder, "--device", "cpu"]
    if not arguments.without_transformers:
        entrants.append(Entrant("transformers serve", [*transformers, "--dtype", "float32"], [folder]))
    if arguments.gguf:
        llama = [sys.executable, str(PARTS / "llama_server.py"), arguments.gguf]
        entrants.append(Entrant("llama.cpp", llama, ["base"]))
        if arguments.lora:
            loras = ["--lora", arguments.lora, "--copies", str(arguments.adapters)]
            entrants.append(
                Entrant(
                    f"llama.cpp, {arguments.adapters} adapters",
                    [*llama, *loras],
                    ["base"],
                    lambda number: {"lora": [{"id": number % arguments.adapters, "scale": 1.0}]},
                )
            )
    return entrants


@contextmanager
def running(entrant: Entrant, folder: Path) -> Iterator[tuple[int, float]]:
    """A server's port, and the seconds until it was ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.perf_counter()
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    with (folder / "server.log").open("w") as log:
        command = [*entrant.command, "--port", str(port)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)
        try:
            while not is_ready(port):
                if process.poll() is not None or time.perf_counter() - started > PATIENCE:
                    end = (folder / "server.log").read_text("utf-8", "replace")[-3000:]
                    raise SystemExit(f"{entrant.name} did not start:\n{' '.join(command)}\n{end}")
                time.sleep(0.1)
            yield port, time.perf_counter() - started
        finally:
            process.terminate()
            process.wait()


def is_ready(port: int) -> bool:
    """Whether a server answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def ask(port: int, body: dict[str, Any]) -> Sample:
    """Stream one answer."""
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"A request failed with {response.status}: {response.read(500).decode()}")
    text, first = "", 0.0
    for line in response:
        data = line.decode().removeprefix("data: ").strip()
        if not line.startswith(b"data: ") or data == "[DONE]":
            continue
        for choice in json.loads(data).get("choices", ()):
            piece = choice.get("delta", {}).get("content") or ""
            first = first or (time.perf_counter() - started if piece else 0.0)
            text += piece
    connection.close()
    return Sample(text, first)


def measure(
    entrant: Entrant, port: int, clients: int, arguments: argparse.Namespace, count: Callable[[str], int]
) -> Figures:
    """Let clients send their requests."""

    def work(client: int) -> list[Sample]:
        samples = []
        for request in range(arguments.requests):
            number = clients * request + client
            prompt = QUESTION.format(subject=SUBJECTS[number % len(SUBJECTS)], number=number, year=1950 + clients)
            body = {
                "model": entrant.models[number % len(entrant.models)],
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": arguments.tokens,
                "temperature": 0,
                "stream": True,
            }
            samples.append(ask(port, body | entrant.fields(number)))
        return samples

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        samples = [sample for answers in pool.map(work, range(clients)) for sample in answers]
    seconds = time.perf_counter() - started
    firsts = sorted(sample.first for sample in samples)
    return Figures(
        clients, sum(count(sample.text) for sample in samples) / seconds, firsts[int(0.95 * (len(firsts) - 1))]
    )


def show_ratios(results: dict[str, list[Figures]]) -> None:
    """Print every pair that the project promises something about."""
    most = {name: figures[-1].tokens_per_second for name, figures in results.items()}
    for name, speed in most.items():
        for other in most:
            is_pair = name.startswith("slmtune") and other != name
            same_adapters = name.rpartition(", ")[2] == other.rpartition(", ")[2] if ", " in name else ", " not in other
            if is_pair and (same_adapters or other == f"{name.rpartition(', ')[0]}, 1 adapters"):
                print(f"{name} / {other}: {speed / most[other]:.2f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--adapter")
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--gguf")
    parser.add_argument("--lora")
    parser.add_argument(
        "--engines", default="", help="values of --engine, separated by commas; by default, none is given"
    )
    parser.add_argument("--without-transformers", action="store_true", help="leave out transformers serve")
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--requests", type=int, default=3, help="of each client")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)

    from finetune.models.find import find_base
    from finetune.models.tokenizer import load_tokenizer

    base = find_base(options.model)
    tokenizer = load_tokenizer(base.folder, base)
    results: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory() as folder:
        adapter = options.adapter or str(Path(folder) / "adapter")
        if not options.adapter:
            run("adapter", [sys.executable, str(PARTS / "random_adapter.py"), options.model, adapter], Path(folder))
        for entrant in enter(options, str(base.folder), adapter):
            with running(entrant, Path(folder)) as (port, ready):
                print(f"{entrant.name}: ready after {ready:.1f} s", flush=True)
                measure(entrant, port, 1, options, lambda text: 0)  # the first requests of a server are slower
                results[entrant.name] = []
                for clients in map(int, options.clients.split(",")):
                    figures = measure(
                        entrant,
                        port,
                        clients,
                        options,
                        lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]),
                    )
                    results[entrant.name].append(figures)
                    speed, first = figures.tokens_per_second, 1000 * figures.first_p95
                    print(f"  {clients:>3} clients  {speed:7.1f} tokens/s  first {first:6.0f} ms", flush=True)
    show_ratios(results)
    if options.json:
        data = {name: [vars(each) for each in figures] for name, figures in results.items()}
        options.json.write_text(json.dumps(data, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
