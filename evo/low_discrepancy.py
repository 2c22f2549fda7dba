"""Scrambled Sobol' and Halton points in the unit cube, equal to `scipy.stats.qmc`'s without needing it.

Only beyond the 64 dimensions of the table here do Sobol' points come from SciPy itself, whose table is 600 kB.

A NumPy `Generator` is not drawn from but spawned once, a `RandomState` is drawn from: both as SciPy does.
"""

import importlib
import importlib.util
import math
from typing import Any

import numpy as np

from evo.rng import Generator, draw_integers

BITS = 30

# For dimensions 2 to 64: the primitive polynomial's coefficients as a number, then its initial direction
# numbers. Source: S. Joe and F. Y. Kuo, "Constructing Sobol sequences with better two-dimensional
# projections", SIAM J. Sci. Comput. 30 (2008), table new-joe-kuo-6.
JOE_KUO = """
    3 1; 7 1 3; 11 1 3 1; 13 1 1 1; 19 1 1 3 3; 25 1 3 5 13; 37 1 1 5 5 17; 41 1 1 5 5 5; 47 1 1 7 11 19;
    55 1 1 5 1 1; 59 1 1 1 3 11; 61 1 3 5 5 31; 67 1 3 3 9 7 49; 91 1 1 1 15 21 21; 97 1 3 1 13 27 49;
    103 1 1 1 15 7 5; 109 1 3 1 15 13 25; 115 1 1 5 5 19 61; 131 1 3 7 11 23 15 103; 137 1 3 7 13 13 15 69;
    143 1 1 3 13 7 35 63; 145 1 3 5 9 1 25 53; 157 1 3 1 13 9 35 107; 167 1 3 1 5 27 61 31;
    171 1 1 5 11 19 41 61; 185 1 3 5 3 3 13 69; 191 1 1 7 13 1 19 1; 193 1 3 7 5 13 19 59;
    203 1 1 3 9 25 29 41; 211 1 3 5 13 23 1 55; 213 1 3 7 3 13 59 17; 229 1 3 1 3 5 53 69;
    239 1 1 5 5 23 33 13; 241 1 1 7 7 1 61 123; 247 1 1 7 9 13 61 49; 253 1 3 3 5 3 55 33;
    285 1 3 1 15 31 13 49 245; 299 1 3 5 15 31 59 63 97; 301 1 3 1 11 11 11 77 249;
    333 1 3 1 11 27 43 71 9; 351 1 1 7 15 21 11 81 45; 355 1 3 7 3 25 31 65 79; 357 1 3 1 1 19 11 3 205;
    361 1 1 5 9 19 21 29 157; 369 1 3 7 11 1 33 89 185; 391 1 3 3 3 15 9 79 71; 397 1 3 7 11 15 39 119 27;
    425 1 1 3 1 11 31 97 225; 451 1 1 1 3 23 43 57 177; 463 1 3 7 7 17 17 37 71; 487 1 3 1 5 27 63 123 213;
    501 1 1 3 5 11 43 53 133; 529 1 3 5 5 29 17 47 173 479; 539 1 3 3 11 3 1 109 9 69;
    545 1 1 1 5 17 39 23 5 343; 557 1 3 1 5 25 15 31 103 499; 563 1 1 1 11 11 17 63 105 183;
    601 1 1 5 11 9 29 97 231 363; 607 1 1 5 15 19 45 41 7 383; 617 1 3 7 7 31 19 83 137 221;
    623 1 1 1 3 23 15 111 223 83; 631 1 1 5 13 31 15 55 25 161; 637 1 1 3 13 25 47 39 87 257
"""


def sobol(rng: Generator, size: int, dimension: int) -> np.ndarray:
    """(size, dimension) points of a Sobol' sequence with a random linear scramble and digital shift.

    Raises:
        ModuleNotFoundError: more dimensions than the table of direction numbers has, and SciPy is not installed.
    """
    directions = _direction_numbers(dimension)
    if directions is None:
        return _scipys_sobol(rng, size, dimension)
    rng = _own_generator(rng)
    powers = 1 << np.arange(BITS)
    shift = draw_integers(rng, 2, (dimension, BITS), np.uint32).astype(np.int64) @ powers
    scramble = np.tril(draw_integers(rng, 2, (dimension, BITS, BITS), np.uint32)).astype(np.int64)
    np.einsum("dii->di", scramble)[...] = 1
    directions = _scrambled(directions, scramble @ powers[::-1])
    points = np.empty((size, dimension), dtype=np.int64)
    points[0] = shift
    for row in range(1, size):
        # Gray code: the next point differs by the direction of the lowest zero bit of the last one's number.
        last = row - 1
        points[row] = points[last] ^ directions[:, (~last & row).bit_length() - 1]
    return points * 2.0**-BITS


def _scipys_sobol(rng: Generator, size: int, dimension: int) -> np.ndarray:
    if importlib.util.find_spec("scipy") is None:
        raise ModuleNotFoundError(
            f"init='sobol' knows {dimension} dimensions only where SciPy is installed (pip install scipy); "
            "'halton' has no limit"
        )
    qmc: Any = importlib.import_module("scipy.stats.qmc")
    sampler = qmc.Sobol(dimension, seed=rng)  # `rng` would refuse a RandomState
    return sampler.random_base2(math.ceil(math.log2(size)))[:size]  # SciPy warns of other numbers of points


def _direction_numbers(dimension: int) -> np.ndarray | None:
    """(dimension, BITS) integers, most significant direction first; None beyond the table."""
    table = [[int(word) for word in entry.split()] for entry in JOE_KUO.split(";")]
    if dimension > len(table) + 1:
        return None
    rows = [[1] * BITS]
    for polynomial, *numbers in table[: dimension - 1]:
        degree = len(numbers)
        for _ in range(degree, BITS):
            value = numbers[-degree]
            for step in range(1, degree + 1):
                if polynomial >> (degree - step) & 1:
                    value ^= numbers[-step] << step
            numbers.append(value)
        rows.append(numbers)
    return np.array(rows, dtype=np.int64)[:dimension] << np.arange(BITS - 1, -1, -1)


def _scrambled(directions: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Each direction's bits times its dimension's binary matrix (dimension, BITS), a word a row."""
    parity = np.bitwise_count(matrix[:, None, :] & directions[:, :, None]) & 1
    return parity.astype(np.int64) @ (1 << np.arange(BITS - 1, -1, -1))


def halton(rng: Generator, size: int, dimension: int) -> np.ndarray:
    """(size, dimension) points of a Halton sequence, digits permuted at random (Owen, 2017)."""
    rng = _own_generator(rng)
    return np.stack([_van_der_corput(rng, size, base) for base in _primes(dimension)], axis=1)


def _van_der_corput(rng: Generator, size: int, base: int) -> np.ndarray:
    """(size,) points: the digits of 0, 1, 2, ... in `base`, permuted and mirrored at the point."""
    places = math.ceil(54 / math.log2(base)) - 1
    permutations = np.tile(np.arange(base), (places, 1))
    for permutation in permutations:
        rng.shuffle(permutation)
    points, rest, place_value = np.zeros(size), np.arange(size), 1.0 / base
    for permutation in permutations:
        points += permutation[rest % base] * place_value
        place_value /= base
        rest //= base
    return points


def _primes(count: int) -> list[int]:
    primes = []
    candidate = 2
    while len(primes) < count:
        if all(candidate % prime for prime in primes):
            primes.append(candidate)
        candidate += 1
    return primes


def _own_generator(rng: Generator) -> Generator:
    return rng.spawn(1)[0] if isinstance(rng, np.random.Generator) else rng
