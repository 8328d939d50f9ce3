"""Microseconds per document for MinHash signatures over word 5-grams: slmtune's, rensa's and datasketch's, in one run.

    pip install rensa datasketch
    python benchmarks/parts/minhash_libraries.py [DOCUMENTS]

Documents have 100 words of an invented vocabulary. The libraries get the same lower-case words; splitting these into
n-grams is part of the work, and is also measured alone.
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
    """The word n-grams of a text, as the libraries expect them."""
    words = text.lower().split()
    return [" ".join(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1)]


def with_rensa(texts: Sequence[str]) -> None:
    """rensa's R-MinHash."""
    import rensa

    for text in texts:
        minhash = rensa.RMinHash(num_perm=NUM_PERM, seed=1)
        minhash.update(ngrams(text))
        minhash.digest()


def with_datasketch(texts: Sequence[str]) -> None:
    """datasketch's MinHash, one text at a time."""
    from datasketch import MinHash

    for text in texts:
        minhash = MinHash(num_perm=NUM_PERM, seed=1)
        minhash.update_batch([gram.encode() for gram in ngrams(text)])


def main() -> None:
    """Print one line per library."""
    texts = documents(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
    tools: dict[str, Callable[[Sequence[str]], object]] = {
        "slmtune": sign,
        "n-grams alone": lambda texts: [ngrams(text) for text in texts],
        "rensa": with_rensa,
        "datasketch": with_datasketch,
    }
    microseconds: dict[str, float] = {}
    for name, tool in tools.items():
        try:
            tool(texts[:10])
        except ImportError:
            print(f"{name:14} not installed")
            continue
        started = time.perf_counter()
        tool(texts)
        microseconds[name] = (time.perf_counter() - started) / len(texts) * 1e6
        times = microseconds[name] / microseconds["slmtune"]
        print(f"{name:14} {microseconds[name]:8.1f} us per document, {times:6.1f} times slmtune's")


if __name__ == "__main__":
    main()
