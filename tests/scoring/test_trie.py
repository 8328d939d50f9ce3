"""A tree of token sequences keeps what they are, and computes what they share once."""

from __future__ import annotations

import numpy as np

from finetune.scoring.trie import build_trie

END = 0
SEQUENCES = [[7, 8, END], [7, 8, 9, END], [7, END], [5, END]]  # the first is a prefix of the second, but for its end


def test_shared_beginnings_are_single_nodes() -> None:
    trie = build_trie(SEQUENCES)
    assert [[trie.tokens[node] for node in path] for path in trie.paths] == SEQUENCES
    assert [trie.tokens[node] for node in trie.inner] == [7, 8, 9, 5]
    assert len(trie.tokens) - 1 == 8  # of 11 tokens


def test_tokens_see_their_own_branch_only() -> None:
    assert build_trie(SEQUENCES).visible.tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [True, True, True, False],
        [False, False, False, True],
    ]


def test_sums_and_greedy_decoding_follow_the_branches() -> None:
    trie = build_trie(SEQUENCES)
    probabilities = {(7,): 0.6, (5,): 0.4, (7, 8): 0.5, (7, END): 0.5, (5, END): 1.0, (7, 8, END): 0.4, (7, 8, 9): 0.6}
    nodes = {
        node: tuple(trie.tokens[one] for one in path[: at + 1]) for path in trie.paths for at, node in enumerate(path)
    }
    logprobs = [float(np.log(probabilities.get(nodes[node], 1.0))) for node in range(1, len(trie.tokens))]
    assert np.allclose(np.exp(trie.sum_paths(logprobs)), [0.6 * 0.5 * 0.4, 0.6 * 0.5 * 0.6, 0.6 * 0.5, 0.4])
    assert trie.pick_greedily(logprobs) == 1  # although the last sequence is the likeliest


def test_equal_sequences_share_their_nodes() -> None:
    trie = build_trie([[3, END], [3, END]])
    assert trie.paths[0] == trie.paths[1]
    assert trie.pick_greedily([-1.0, -1.0]) == 0
