"""A frozen network split in two: a trunk that never changes, and a tail whose projections adapt.

The input of the first adapted block never changes in training. It is computed once per image (`trunk`), rounded to half
precision and kept; training and evaluation run only the `tail`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..utils.errors import NestKALAError

Projection = Literal["q", "k", "v", "o", "head"]
"""A linear projection of self-attention (queries, keys, values, output), or "head", a convolutional network's last."""


class BlockAdapter(Protocol):
    """Adapts one block."""

    def __call__(
        self, x: Tensor, names: Sequence[Projection], projected: Tensor | None = None, /
    ) -> dict[Projection, Tensor]:
        """Input (B, t, d) of the named projections -> what to add to the outputs of those it adapts.

        The outputs are (B, t, d) too; if their width differs, `projected` (B, t, d') is the frozen output.
        """


class AdaptableBlock(nn.Module):
    """A pre-norm transformer block, built from a library's own modules, that accepts an adapter of its attention.

    Without an adapter it computes the same as the library's block in evaluation mode.
    """

    def __init__(
        self,
        *,
        norm1: nn.Module,
        qkv: nn.Module,
        num_heads: int,
        q_norm: nn.Module,
        k_norm: nn.Module,
        inner_norm: nn.Module,
        out: nn.Module,
        scale1: nn.Module,
        norm2: nn.Module,
        mlp: nn.Module,
        scale2: nn.Module,
    ) -> None:
        super().__init__()
        self.norm1, self.qkv, self.q_norm, self.k_norm = norm1, qkv, q_norm, k_norm
        self.inner_norm, self.out, self.scale1 = inner_norm, out, scale1
        self.norm2, self.mlp, self.scale2 = norm2, mlp, scale2
        self.num_heads = num_heads

    def forward(self, x: Tensor, adapter: BlockAdapter | None = None) -> Tensor:
        x = x + self.scale1(self._attend(self.norm1(x), adapter))
        return x + self.scale2(self.mlp(self.norm2(x)))  # (B, t, d)

    def _attend(self, x: Tensor, adapter: BlockAdapter | None) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # (B, t, d) each
        if adapter is not None:
            deltas = adapter(x, ("q", "k", "v"))
            q, k, v = (
                deltas[name] + projected if name in deltas else projected
                for name, projected in (("q", q), ("k", k), ("v", v))
            )
        q, k, v = (rearrange(y, "b t (h e) -> b h t e", h=self.num_heads) for y in (q, k, v))
        attended = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        attended = self.inner_norm(rearrange(attended, "b h t e -> b t (h e)"))
        projected = self.out(attended)  # (B, t, d)
        if adapter is not None:
            for delta in adapter(attended, ("o",)).values():
                projected = projected + delta
        return projected


class Tower(nn.Module, ABC):
    """The split network. Its weights are frozen until `unlock`, and it is always in evaluation mode.

    Attributes:
        width: d, width of the tokens that enter the projections.
        projected_width: output width of the adapted projections; equals `width` in a transformer.
        feature_dim: width of the feature that the tail returns.
        num_prefix_tokens: number of class (and register) tokens, which come before the patch tokens.
        num_adapted: number of last blocks in the tail; at 0 the trunk computes the feature itself.
    """

    projections: ClassVar[tuple[Projection, ...]] = ("q", "k", "v", "o")
    """The projections of a block that can be adapted."""
    takes_prompts: ClassVar[bool] = True
    """Whether blocks accept additional tokens."""

    vit: Any

    def __init__(
        self,
        network: nn.Module,
        blocks: Sequence[nn.Module],
        wrap: Callable[[nn.Module], nn.Module],
        *,
        width: int,
        projected_width: int | None = None,
        feature_dim: int,
        num_prefix_tokens: int,
        num_adapted: int,
    ) -> None:
        super().__init__()
        if num_adapted > len(blocks):
            raise NestKALAError(f"adapt_blocks is {num_adapted}, but the backbone has {len(blocks)} blocks")
        self.width, self.feature_dim, self.num_prefix_tokens = width, feature_dim, num_prefix_tokens
        self.projected_width = width if projected_width is None else projected_width
        self.num_adapted = num_adapted
        self.vit = network.requires_grad_(False)  # saved models use this name for every kind of network
        cut = len(blocks) - num_adapted
        self.trunk_blocks = nn.ModuleList(blocks[:cut])
        self.tail_blocks = nn.ModuleList(wrap(block) for block in blocks[cut:])
        self.register_buffer("_place", torch.empty(0), persistent=False)
        self.train(False)

    _place: Tensor

    @property
    def network(self) -> Any:
        """The library's own network, complete."""
        return self.vit

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return self._place.device

    def train(self, mode: bool = True) -> "Tower":  # noqa: ARG002 - frozen: dropout and such stay off
        return super().train(False)

    def unlock(self, part: Literal["biases", "all"]) -> None:
        """Make the biases of the tail's blocks, or all of their parameters, trainable."""
        for name, parameter in self.tail_blocks.named_parameters():
            parameter.requires_grad_(part == "all" or name.endswith("bias"))

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> tokens (B, t, d) entering the first block."""

    @abstractmethod
    def pool(self, tokens: Tensor) -> Tensor:
        """Tokens (B, t, d) leaving the last block -> features (B, feature_dim)."""

    @torch.no_grad()
    def trunk(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> input of `tail`, in half precision: tokens (B, t, d), or the features.

        Raises:
            NestKALAError: if values exceed the range of half precision.
        """
        halved = self.unchecked_trunk(images)
        if not torch.isfinite(halved).all():
            raise beyond_half(self._tokens(images))
        return halved

    def unchecked_trunk(self, images: Tensor) -> Tensor:
        """The same as `trunk` without the check: the same operations whatever the values."""
        return self._tokens(images).half()

    def prepare(self, tokens: Tensor) -> Tensor:
        """Tokens -> what `tail` takes in their place, with frozen steps done that training would repeat."""
        return tokens

    def _tokens(self, images: Tensor) -> Tensor:
        tokens = self.embed(images)
        for block in self.trunk_blocks:
            tokens = block(tokens)
        return self.pool(tokens) if self.num_adapted == 0 else tokens

    def tail(
        self,
        tokens: Tensor,
        adapters: Sequence[BlockAdapter | None] | None = None,
        prompts: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Output of `trunk` or `prepare` -> features (B, feature_dim).

        For each of the last blocks, optionally an adapter, and optionally prompt tokens (p, d) that it sees after the
        image's own.
        """
        if self.num_adapted == 0:
            return tokens
        nothing = [None] * self.num_adapted
        for block, adapter, prompt in zip(self.tail_blocks, adapters or nothing, prompts or nothing, strict=True):
            if prompt is None:
                tokens = block(tokens, adapter)
            else:
                prompted = prompt.expand(tokens.shape[0], *prompt.shape)  # (B, p, d); len() would fix B in an export
                longer = torch.cat([tokens, prompted], dim=1)
                tokens = block(longer, adapter)[:, : tokens.shape[1]]
        return self.pool(tokens)


def beyond_half(tokens: Tensor) -> NestKALAError:
    """The error for tokens that are not finite in half precision."""
    return NestKALAError(
        "the backbone's tokens are not finite in half precision (largest magnitude "
        f"{tokens.abs().max().item():.3g}, half precision ends at 65504)"
    )


class FixedTower(Tower):
    """A network without blocks to adapt: its trunk computes the feature (B, d), which `embed` returns."""

    def __init__(self, network: nn.Module, feature_dim: int) -> None:
        super().__init__(
            network,
            [],
            lambda block: block,
            width=feature_dim,
            feature_dim=feature_dim,
            num_prefix_tokens=0,
            num_adapted=0,
        )

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens
