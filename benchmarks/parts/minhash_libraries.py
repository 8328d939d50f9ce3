"""Microseconds a document for MinHash signatures over word 5-grams: ours, rensa's and datasketch's, in one run.

    pip install rensa datasketch
    python benchmarks/parts/minhash_libraries.py [DOCUMENTS]

Documents have 100 words of an invented vocabulary. The libraries are given the same lower-case words; making n-grams of
them is part of the work, and its share is shown by itself.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence

from finetune.prepare.dedup.signature import NGRAM, NUM_PERM, sign


def documents(count: int) -> list[str]:
    """Invented texts."""
    draw = random.Random(42)
    words = ["".join(draw.choices("aeioubcdfglmnprst", k=draw.randint(2, 9))) for _ in range(20_000)]
    return [" ".join(draw.choices(words, k=100)) for _ in range(count)]


def ngrams(text: str) -> list[str]:
    """The word n-grams of a text, as the libraries want them."""
    words = text.lower().split()
    return [" ".join(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1)]


def with_rensa(texts: Sequence[str]) -> None:
    """rensa's R-MinHash."""
    import rensa

    for text in texts:
        made = rensa.RMinHash(num_perm=NUM_PERM, seed=1)
        made.update(ngrams(text))
        made.digest()


def with_datasketch(texts: Sequence[str]) -> None:
    """datasketch's MinHash, a text at a time."""
    from datasketch import MinHash

    for text in texts:
        made = MinHash(num_perm=NUM_PERM, seed=1)
        made.update_batch([gram.encode() for gram in ngrams(text)])


def main() -> None:
    """Print a line for each."""
    texts = documents(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
    tools: dict[str, Callable[[Sequence[str]], object]] = {
        "slmtune": sign,
        "n-grams alone": lambda texts: [ngrams(text) for text in texts],
        "rensa": with_rensa,
        "datasketch": with_datasketch,
    }
    taken: dict[str, float] = {}
    for name, tool in tools.items():
        try:
            tool(texts[:10])
        except ImportError:
            print(f"{name:14} not installed")
            continue
        started = time.perf_counter()
        tool(texts)
        taken[name] = (time.perf_counter() - started) / len(texts) * 1e6
        print(f"{name:14} {taken[name]:8.1f} us a document, {taken[name] / taken['slmtune']:6.1f} times slmtune's")


if __name__ == "__main__":
    main()
