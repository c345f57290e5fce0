"""Random numbers that are a pure function of a seed, by NumPy: those of TensorFlow's stateless ops.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3") with
the seeds and distributions of `tf.random.stateless_uniform` and `tf.random.experimental`, on CPUs:
crops have always been drawn by those. Each function takes many seeds at once, int64 [n, 2].
"""

import functools

import numpy as np

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_INCREMENTS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ROUNDS = 10
_LOW, _HALF = np.uint64(2**32 - 1), np.uint64(32)
# Seeds go through Philox with this key, so that similar ones give numbers without likeness.
_SCRAMBLE = np.uint64(0x3EC8F720), np.uint64(0x02461E29)


def _philox(counter: np.ndarray, first, second) -> np.ndarray:
    """Returns four random words for each counter, less than 2**32: uint64 [..., 4].

    Args:
      counter: words, uint64 [..., 4].
      first, second: words of the key, uint64 [...].
    """
    a, b, c, d = np.moveaxis(counter, -1, 0)
    for _ in range(_ROUNDS):
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b = (right >> _HALF) ^ b ^ first, right & _LOW
        c, d = (left >> _HALF) ^ d ^ second, left & _LOW
        first, second = (first + _INCREMENTS[0]) & _LOW, (second + _INCREMENTS[1]) & _LOW
    return np.stack([a, b, c, d], axis=-1)


def _words(seeds: np.ndarray, count: int) -> np.ndarray:
    """Returns random words, less than 2**32: uint64 [n, count]."""
    seeds = seeds.astype(np.uint64)
    parts = [seeds & _LOW, seeds >> _HALF]  # [n, 2] each
    mixed = _philox(np.stack(parts, axis=-1).reshape(-1, 4), *_SCRAMBLE)
    counter = np.zeros((len(seeds), -(-count // 4), 4), np.uint64)
    counter[..., 0] = np.arange(counter.shape[1])
    counter[..., 2:] = mixed[:, None, 2:]
    words = _philox(counter, mixed[:, None, 0], mixed[:, None, 1])
    return words.reshape(len(seeds), -1)[:, :count]


def uniform(seeds: np.ndarray, count: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Draws from `low` to less than `high`: float32 [n, count]."""
    draws = (_words(seeds, count) & np.uint64(2**23 - 1)).astype(np.float32) / np.float32(2**23)
    low, high = np.float32(low), np.float32(high)
    return draws * (high - low) + low


def uniform_double(seeds: np.ndarray, count: int) -> np.ndarray:
    """Draws from 0 to less than 1: float64 [n, count]."""
    high, low = np.moveaxis(_words(seeds, 2 * count).reshape(len(seeds), count, 2), -1, 0)
    return ((high & np.uint64(2**20 - 1)) * 2.0**32 + low) / 2.0**52


def whole(seeds: np.ndarray, count: int) -> np.ndarray:
    """Draws whole numbers of 64 bits: uint64 [n, count]."""
    low, high = np.moveaxis(_words(seeds, 2 * count).reshape(len(seeds), count, 2), -1, 0)
    return low | high << _HALF


def folded(seeds: np.ndarray, number: int) -> np.ndarray:
    """Returns seeds made of seeds and a number below 2**31, as `stateless_fold_in` does."""
    first = _words(seeds, 1)[:, 0].astype(np.uint32).astype(np.int32)
    return np.stack([first.astype(np.int64), np.full(len(seeds), number, np.int64)], axis=1)


@functools.lru_cache(4)
def permutation(seed: int, number: int, count: int) -> np.ndarray:
    """Returns a permutation of 0 to `count - 1`, as `index_shuffle` with [seed, number] gives it.

    Four rounds of the Simon cipher (Beaulieu et al. 2013) permute all words of an even number of
    bits. A word of `count` or more is permuted again, until it is less. If `count - 1` is a power
    of 4 over 2**15, there is a word too few, and the last number is permuted as 0 is.
    """
    if count == 1:
        return np.zeros(1, np.int64)
    bits = int(np.ceil(np.log2(count - 1)))
    half = max(bits + bits % 2, 16) // 2
    mask = 2**half - 1

    def turned(x, left):
        left %= half
        return ((x << left) | (x >> (half - left))) & mask

    def mixed(x):
        return (turned(x, 1) & turned(x, 8)) ^ turned(x, 2)

    keys = [key & mask for key in (498247692, seed, number)]
    last = 0xFFFFFFFC ^ 1 ^ keys[0] ^ turned(keys[2], -3) ^ turned(keys[2], -4)
    words = np.arange(2 ** (2 * half))
    left, right = words >> half, words & mask
    for even, odd in (keys[:2], (keys[2], last & mask)):
        left = left ^ mixed(right) ^ even
        right = right ^ mixed(left) ^ odd
    once = left << half | right
    # Doubles the number of permutations that are done at once.
    order, step = once[np.arange(count) % len(words)], np.where(words < count, words, once)
    while (order >= count).any():
        order, step = step[order], step[step]
    return order
