"""MinHash signatures of texts over word 5-grams: equal for equal texts in every process, machine and run.

A Python object per word is what takes time, so words are hashed in numpy over the bytes of many texts at once, and so
are n-grams and minima. A text of 100 words takes 10 µs on one core; finding the words with a regular expression alone
takes 26, datasketch 235, and rensa 4 once it has the n-grams, which take 65 (benchmarks/parts/minhash_libraries.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from finetune.prepare.dedup.keys import URL

U64 = npt.NDArray[np.uint64]
Starts = npt.NDArray[np.int64]
Signatures = npt.NDArray[np.uint16]

NGRAM = 5  # words per shingle: Lee et al. 2022 and Penedo et al. 2024 (FineWeb) both use 5
NUM_PERM = 128  # standard error sqrt(J(1-J)/128): 3.5 points at J = 0.8; Broder 1997
# Of each minimum the lowest 16 bits are kept: two unequal ones agree in 1 of 65,536, far below that error, and a row is
# 256 bytes. Li and König 2010, b-bit minwise hashing.
SIGNATURE_DTYPE = np.uint16

# Bytes of text per batch, and of these hashed at once: two arrays of 8 bytes per byte should stay in a core's cache.
_BATCH, _PIECE = 1 << 20, 1 << 16
_LONG_WORD = 1000  # bytes; longer ones (base64) are cut where a text is longer than a batch, to bound memory
_BASE = 0x9E3779B97F4A7C15  # odd, hence with an inverse modulo 2^64: the golden ratio, Knuth 6.4
_POSITION_SEED, _PERMUTATION_SEED = 1, 2

# One table lowers case and blanks whatever of ASCII `\w` does not match; the bytes of other letters stay.
_FOLD = bytes(n if n > 127 else ord(chr(n).lower()) if chr(n).isalnum() or chr(n) == "_" else 32 for n in range(256))
_FOREIGN_BLANK = re.compile(r"[^\w\x00-\x7f]+")
# Scripts without blanks between words (Thai, Lao, Burmese, Khmer, kana, Han): each character is taken as a word.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"
)
_CUT = re.compile(rb"[^ ]{%d}" % _LONG_WORD)


def sign(texts: Sequence[str]) -> Signatures:
    """MinHash signatures, shape (rows, NUM_PERM): the share of equal columns of two rows estimates their Jaccard index.

    Words are runs of letters and digits, regardless of case; links do not count, since posts are copied with new ones.
    A text of fewer than NGRAM words is one shingle; one without a word (punctuation, emoji) is compared as a whole.
    """
    signatures = np.empty((len(texts), NUM_PERM), SIGNATURE_DTYPE)
    row = 0
    for batch in _batches(texts):
        signatures[row : row + len(batch)] = _minima(*_shingles(batch))
        row += len(batch)
    return signatures


def _batches(texts: Sequence[str]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for text in texts:
        folded = _fold(text)
        batch.append(folded)
        size += len(folded)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _fold(text: str) -> bytes:
    """The words of `text` in lower case, separated by blanks: at least one word."""
    words = URL.sub(" ", text) if "://" in text or "www." in text else text
    if not text.isascii():
        words = _FOREIGN_BLANK.sub(" ", words.casefold())
        words = _UNSPACED.sub(r" \g<0> ", words) if _UNSPACED.search(words) else words
    folded = words.encode("utf-8", "surrogatepass").translate(_FOLD)
    if not folded or folded.isspace():
        symbols = " ".join(text.split()).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(symbols, digest_size=8).hexdigest().encode()
    return _CUT.sub(rb"\g<0> ", folded) if len(folded) > _BATCH else folded


def _shingles(batch: Sequence[bytes]) -> tuple[npt.NDArray[np.uint32], Starts]:
    """Hashes of the n-grams of all texts, concatenated, and the start of each text."""
    sizes = np.fromiter(map(len, batch), np.int64, len(batch)) + 1
    words, positions = _words(b" ".join(batch) + b" ")
    first = np.searchsorted(positions, np.cumsum(sizes) - sizes)
    count = np.diff(first, append=len(words))
    factors = multipliers(_POSITION_SEED, NGRAM)
    padded = np.concatenate([words, np.zeros(NGRAM, np.uint64)])
    hashes = padded[: len(words)] * factors[0]
    for position in range(1, NGRAM):
        hashes += padded[position : position + len(words)] * factors[position]
    short = np.flatnonzero(count < NGRAM)  # a window at their start would reach into the next text
    within = np.arange(NGRAM) < count[short, None]
    hashes[first[short]] = (np.where(within, padded[first[short, None] + np.arange(NGRAM)], 0) * factors).sum(axis=1)
    windows = np.maximum(count - NGRAM + 1, 1)
    starts = np.cumsum(windows) - windows
    chosen = np.arange(windows.sum()) + np.repeat(first - starts, windows)
    return (_mix(hashes[chosen]) >> np.uint64(32)).astype(np.uint32), starts


def _words(text: bytes) -> tuple[U64, Starts]:
    """Hash and position of each word of `text`, whose words are parted by blanks and which ends in one.

    A word's hash is the polynomial of its bytes at _BASE modulo 2^64: differences of one running sum, brought to the
    word's own origin with the inverse power.
    """
    hashes: list[U64] = []
    positions: list[Starts] = []
    begin = 0
    while begin < len(text):
        cut = text.rfind(b" ", begin, begin + _PIECE)
        end = (cut if cut >= 0 else text.index(b" ", begin)) + 1
        piece = np.frombuffer(text, np.uint8, end - begin, begin)
        powers, inverses = _powers(max(_PIECE, 1 << (end - begin).bit_length()))
        sums = np.zeros(len(piece) + 1, np.uint64)
        np.cumsum(piece * powers[: len(piece)], out=sums[1:])
        blank = np.empty(len(piece) + 1, np.bool_)
        blank[0] = True
        np.equal(piece, 32, out=blank[1:])
        edges = np.flatnonzero(blank[1:] != blank[:-1])
        starts, ends = edges[::2], edges[1::2]
        hashes.append(_mix((sums[ends] - sums[starts]) * inverses[starts]))
        positions.append(starts + begin)
        begin = end
    return np.concatenate(hashes), np.concatenate(positions)


def _minima(shingles: npt.NDArray[np.uint32], starts: Starts) -> Signatures:
    """The smallest value of each text's shingles under each permutation x -> a·x modulo 2^32 with odd a.

    The shingles are mixed already, so that the product alone orders them as if at random: over 1,500 pairs the error
    of the estimate was that of the binomial, with a summand and without (4.3 points at J = 0.5, 2.6 at 0.9).
    """
    minima = np.empty((NUM_PERM, len(starts)), np.uint32)
    permuted = np.empty_like(shingles)
    for number, factor in enumerate(multipliers(_PERMUTATION_SEED, NUM_PERM).astype(np.uint32)):
        np.multiply(shingles, factor, out=permuted)
        np.minimum.reduceat(permuted, starts, out=minima[number])
    return minima.T.astype(SIGNATURE_DTYPE)


def _mix(values: U64) -> U64:
    """SplitMix64's finaliser: every bit of the result depends on every bit of the value. Steele et al. 2014."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def multipliers(seed: int, count: int) -> U64:
    """Fixed odd numbers: SplitMix64's outputs."""
    with np.errstate(over="ignore"):
        return _mix((np.arange(count, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(_BASE)) | np.uint64(1)


@cache
def _powers(count: int) -> tuple[U64, U64]:
    """The powers 0 … count-1 of _BASE and of its inverse, modulo 2^64."""
    bases = np.full((2, count), 1, np.uint64)
    bases[:, 1:] = np.array([[_BASE], [pow(_BASE, -1, 1 << 64)]], np.uint64)
    powers = np.cumprod(bases, axis=1, dtype=np.uint64)
    return powers[0], powers[1]
