"""Assigns hash centers to classes."""

import torch
from torch import Tensor


def arrange(centers: Tensor, similarity: Tensor) -> Tensor:
    """Order the centers (C, L), entries -1 or +1, so that similar classes get similar centers.

    An image that could belong to either of two classes then has a code near both. The k-th bit has weight 1 / k,
    because the first bits make the short codes. The order is a local optimum of
    sum_ij similarity_ij <center_i, center_j> (a quadratic assignment problem), found by swapping the centers of two
    classes as long as that helps.

    Args:
        centers: in any order.
        similarity: similarity of the classes, symmetric (C, C).
    """
    counts = 1 / torch.arange(1, centers.shape[1] + 1).to(centers)
    products = ((centers * counts) @ centers.T).fill_diagonal_(0)
    similarity = similarity.to(centers).clone().fill_diagonal_(0)

    def value(order: Tensor) -> float:
        return (similarity * products[order][:, order]).sum().item()

    order = torch.arange(len(centers), device=centers.device)
    best, at_once = value(order), max(1, len(centers) // 16)
    while at_once > len(centers) // 256:
        swapped = _swap(order, _gains(similarity, products[order][:, order]), at_once)
        if (found := value(swapped)) > best:
            order, best = swapped, found
        else:  # simultaneous swaps can conflict
            at_once //= 2
    return centers[order]


def _gains(similarity: Tensor, products: Tensor) -> Tensor:
    """The increase of the sum from swapping the centers of i and j, (C, C), for i < j; 0 elsewhere."""
    mixed = similarity @ products
    own = mixed.diagonal()
    return (2 * (mixed + mixed.T - own[:, None] - own) + 4 * similarity * products).triu(1)


def _swap(order: Tensor, gains: Tensor, at_once: int) -> Tensor:
    """The order after the best `at_once` swaps, no two of which share a class."""
    order, used, done = order.clone(), set[int](), 0
    best = gains.flatten().topk(min(gains.numel(), 16 * at_once))
    for gain, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        i, j = divmod(place, len(order))
        if gain <= 0 or done == at_once:
            break
        if not used & {i, j}:
            used |= {i, j}
            order[[i, j]] = order[[j, i]]
            done += 1
    return order
