"""Hash centers for one code length: one binary code per class, the closest two as far apart as a search can find."""

from math import comb

import torch
from torch import Tensor

from .arguments import whole
from .dcc import random_codes

_ALL_WORDS = 16  # bits; up to here a search sees every word, beyond it a random sample
_POOL = 2**21  # entries of such a sample: 32,768 words of 64 bits
_BLOCK = 256  # words that a search compares at a time with all those chosen so far
_ORDERS = 32  # maximum number of random orders tried if the search sees every word


def hash_centers(num_classes: int, bits: int, generator: torch.Generator) -> Tensor:
    """Centers (num_classes, bits), entries -1 or +1, for losses with one center per class.

    If bits is a power of two and num_classes is at most twice that, the centers are rows of the Hadamard matrix and
    their negatives, and the closest two differ in at least half of the bits. Otherwise a greedy search takes any word
    that is far enough from all words taken before, at the largest distance that yields enough words. That distance is
    at least `gilbert_varshamov`, which greedy search always reaches. With more classes than words (2^bits), classes
    are spread evenly over the words.

    A bit that would be the same for all classes is redrawn, half -1 and half +1, which can only add distance.
    Centers of different lengths are unrelated (`nested_centers` are prefixes).

    Source: CSQ (Yuan et al., CVPR 2020) algorithm 1 for Hadamard matrices; MDSH (Wang et al., CVPR 2023) section 3 for
    the Gilbert-Varshamov bound as the distance to reach.

    Args:
        num_classes: 1 or more. 1,000 classes take a moment at any length.
        bits: 1 or more.
        generator: source of all randomness.

    Raises:
        ValueError: if there are no classes or no bits.

    Example:
        >>> centers = hash_centers(80, 16, torch.Generator().manual_seed(0))
        >>> minimum_distance(centers)
        6
    """
    num_classes, bits = whole("num_classes", num_classes, 1), whole("bits", bits, 1)
    if num_classes > 2**bits:
        words = _all_words(bits)
        rounds = [torch.randperm(len(words), generator=generator) for _ in range(-(-num_classes // len(words)))]
        return words[torch.cat(rounds)[:num_classes]]
    power_of_two = bits & (bits - 1) == 0
    if power_of_two and num_classes <= 2 * bits:
        centers = _hadamard_rows(num_classes, bits, generator)
    else:
        centers = _search(num_classes, bits, generator)
    same = (centers == centers[0]).all(dim=0)
    columns = int(same.sum())
    halves = torch.rand(num_classes, columns, generator=generator).argsort(dim=0) % 2 * 2 - 1
    centers[:, same] = halves * random_codes(1, columns, generator)  # which half gets the odd class is random as well
    return centers


def minimum_distance(centers: Tensor) -> int:
    """The Hamming distance of the closest two centers (C, b), entries -1 or +1; b if there is only one."""
    bits = centers.shape[1]
    products = (centers @ centers.T).fill_diagonal_(-bits)
    return (bits - int(products.max())) // 2


def gilbert_varshamov(num_classes: int, bits: int) -> int:
    """The largest d, at most bits, for which num_classes * sum_{i<d} binom(bits, i) <= 2^bits.

    There are num_classes words (at most 2^bits) whose closest two differ in d or more bits, and greedy search finds
    them: a word excludes at most as many words as the sum.

    Source: Gilbert (1952), Varshamov (1957); MDSH (Wang et al., CVPR 2023) section 3.
    """
    distance = ruled_out = 0
    while distance < bits:
        ruled_out += comb(bits, distance)
        if num_classes * ruled_out > 2**bits:
            break
        distance += 1
    return distance


def _all_words(bits: int) -> Tensor:
    """All words (2^bits, bits) in lexicographic order."""
    return torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * bits).view(-1, bits)


def _hadamard_rows(num_classes: int, bits: int, generator: torch.Generator) -> Tensor:
    """Rows of the (Sylvester) Hadamard matrix in random order and with random signs, then their negatives."""
    hadamard = torch.ones(1, 1)
    while len(hadamard) < bits:
        hadamard = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), hadamard)
    rows = hadamard[torch.randperm(bits, generator=generator)] * random_codes(bits, 1, generator)
    return torch.cat([rows, -rows])[:num_classes]


def _search(num_classes: int, bits: int, generator: torch.Generator) -> Tensor:
    """Greedy search at decreasing distances, from an upper bound down to one that is sure to be reached."""
    # Singleton bound: all classes still differ after removing any distance - 1 of the bits
    distance = min(bits, bits + 1 - (num_classes - 1).bit_length())
    if num_classes > 1:
        # Plotkin bound: the mean distance is largest if every bit splits the classes in half
        halves = num_classes // 2 * (num_classes - num_classes // 2)
        distance = min(distance, bits * halves // comb(num_classes, 2))
    surely = gilbert_varshamov(num_classes, bits)
    while True:
        # Words an odd distance apart differ in parity, so an even distance gets its last bit for free.
        even = 1 - distance % 2
        search = _search_all if bits - even <= _ALL_WORDS else _search_random
        centers = search(num_classes, bits - even, distance - even, generator, distance <= surely)
        if centers is not None:
            return torch.cat([centers, centers.prod(dim=1, keepdim=True)], dim=1) if even else centers
        distance -= 1


def _search_all(
    num_classes: int,
    bits: int,
    distance: int,
    generator: torch.Generator,
    surely: bool,  # noqa: ARG001 - there is nothing more to draw
) -> Tensor | None:
    """Centers at least `distance` apart among all words, in random orders, then in lexicographic order; or None."""
    words = _all_words(bits)
    for _ in range(min(_ORDERS, 2**_ALL_WORDS // len(words))):
        order = torch.randperm(len(words), generator=generator)
        centers = _greedy(words[order], num_classes, distance)
        if len(centers) == num_classes:
            return centers
    # Often finds more (linear codes), but needs all of them, because the first words share their first bits.
    centers = _greedy(words, len(words), distance)
    if len(centers) < num_classes:
        return None
    return centers[torch.randperm(len(centers), generator=generator)[:num_classes]]


def _search_random(
    num_classes: int, bits: int, distance: int, generator: torch.Generator, surely: bool
) -> Tensor | None:
    """Centers at least `distance` apart among random words; draws more words only if that `surely` succeeds."""
    centers = torch.empty(0, bits)
    while True:
        words = random_codes(max(_POOL // bits, num_classes), bits, generator)
        centers = _greedy(words, num_classes, distance, centers)
        if len(centers) == num_classes:
            return centers
        if not surely:
            return None


def _greedy(words: Tensor, num: int, distance: int, taken: Tensor | None = None) -> Tensor:
    """Go through the words (M, b) and take any that is at least `distance` bits from all `taken`, up to num."""
    most = words.shape[1] - 2 * distance  # the largest inner product of words that far apart
    taken = words[:0] if taken is None else taken
    for block in words.split(_BLOCK):
        left = block[(block @ taken.T <= most).all(dim=1)]
        new: list[Tensor] = []
        while len(left) and len(taken) + len(new) < num:
            new.append(left[0])
            left = left[left @ left[0] <= most]
        taken = torch.cat([taken, *(word[None] for word in new)])
        if len(taken) == num:
            break
    return taken
