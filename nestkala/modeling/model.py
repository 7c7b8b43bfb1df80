"""The trained model: a frozen tower's tail with an adapter, text anchors, and a hash head."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..adapters import Adapter, CLoRA
from ..backbones import Tower
from ..heads import HashHead, NestedHashHead, check_lengths
from ..utils.errors import NestKALAError, one_line
from .class_directions import ClassDirections, in_span
from .class_layer import ClassLayer


class HashModel(nn.Module):
    """Tokens from the tower's trunk -> relaxed codes of all lengths.

    Trained are the adapter, F (`anchor_to_token`), G (`anchor_to_code`), the prototypes of the class layer, the head,
    and unlocked parts of the otherwise frozen tower.

    Args:
        tower: the split backbone.
        anchors: text anchors K (C, d_t).
        lengths: code lengths in bits, ascending.
        adapter: adapter of the tower's last blocks; None to use the tower unchanged.
        batch_norm: see `HashHead`.
        head: class of the head, called with (input width, lengths, batch_norm).
        class_layer: whether a `ClassLayer` precedes the head, to be set by a closed-form start.
        num_unnamed: number of unnamed kinds of things that it distinguishes in addition to the classes.

    Raises:
        NestKALAError: if the adapter's rank exceeds the number of classes, its number of blocks differs, or the head
            cannot be created or has the wrong output.
        ValueError: if the lengths are not ascending positive ints.
    """

    anchors: Tensor

    def __init__(
        self,
        tower: Tower,
        anchors: Tensor,
        lengths: Sequence[int],
        adapter: Adapter | None = None,
        batch_norm: bool = False,
        head: type[HashHead] = NestedHashHead,
        class_layer: bool = False,
        num_unnamed: int = 0,
    ) -> None:
        super().__init__()
        check_lengths(lengths)
        num_classes, width = anchors.shape
        if isinstance(adapter, CLoRA) and adapter.rank > num_classes:
            raise NestKALAError(f"rank is {adapter.rank}, but can be at most the number of classes, {num_classes}")
        if adapter is not None and adapter.num_blocks != tower.num_adapted:
            raise NestKALAError(f"the adapter has {adapter.num_blocks} blocks, but the tail has {tower.num_adapted}")
        self.tower = tower
        self.register_buffer("anchors", anchors)
        self.adapter = adapter
        uses_anchors = adapter is not None and adapter.uses_anchors
        self.anchor_to_token = ClassDirections(anchors, tower.projected_width) if uses_anchors else None
        self.anchor_to_code = nn.Linear(width, head.width_for(lengths))
        nn.init.normal_(self.anchor_to_code.weight, std=0.01)
        nn.init.zeros_(self.anchor_to_code.bias)
        self.class_layer = ClassLayer(tower.feature_dim, num_classes + num_unnamed) if class_layer else None
        in_features = tower.feature_dim if self.class_layer is None else self.class_layer.out_features
        self.head = _made(head, in_features, lengths, batch_norm)

    def features(self, tokens: Tensor) -> Tensor:
        """Output of `Tower.trunk` -> adapted features (B, feature_dim)."""
        if self.adapter is None:
            return self.tower.tail(tokens)
        directions = self.anchor_to_token() if self.anchor_to_token is not None else None
        return self.tower.tail(tokens, self.adapter.bind(directions), self.adapter.prompts())

    def forward(self, tokens: Tensor, gather: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Tokens -> relaxed codes H (B, L) in (-1, 1) and anchors in code space T (C, L); L is the head's width.

        With `gather`, which collects features across processes with gradient, B is the global batch.
        """
        exact = self.dtype
        features = self.features(tokens.to(exact))
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(exact)
            if gather is not None:
                features = gather(features)
            if self.class_layer is not None:
                features = self.class_layer(features)
            return self.head(features), self.anchor_to_code(self.anchors)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of everything but the frozen backbone, regardless of autocast."""
        return self.anchor_to_code.weight.dtype

    def trained_state(self) -> dict[str, Tensor]:
        """Everything except the frozen part of the tower: a few megabytes, unless blocks of it are trained."""
        beside = {name: value for name, value in self.state_dict().items() if not name.startswith("tower.")}
        trained = {name: value for name, value in self.tower.named_parameters("tower") if value.requires_grad}
        return beside | {name: value.detach() for name, value in trained.items()}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Load the output of `trained_state`.

        Raises:
            NestKALAError: if names, shapes or dtypes differ from this model's, or values are not finite.
        """
        own, state = self.trained_state(), _in_span(state)
        for name in sorted(own.keys() | state.keys()):
            ours, theirs = own.get(name), state.get(name)
            if ours is None or theirs is None or ours.shape != theirs.shape:
                raise NestKALAError(
                    f"the saved model does not fit: {name} is {'absent' if theirs is None else tuple(theirs.shape)}, "
                    f"expected {'absent' if ours is None else tuple(ours.shape)}"
                )
            if ours.dtype != theirs.dtype:
                raise NestKALAError(f"the saved model does not fit: {name} is {theirs.dtype}, expected {ours.dtype}")
            if not torch.isfinite(theirs).all():
                raise NestKALAError(f"the saved model does not fit: {name} is not finite")
        self.load_state_dict(state, strict=False)


def _in_span(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a model from an earlier version, which had F's whole weight, as it is today."""
    anchors, weight = state.get("anchors"), state.get("anchor_to_token.weight")
    earlier = "anchor_to_token.coordinates" not in state
    if anchors is None or weight is None or not earlier or weight.shape[1:] != anchors.shape[1:]:
        return state
    coordinates, weight = in_span(anchors, weight)
    return state | {"anchor_to_token.coordinates": coordinates, "anchor_to_token.weight": weight}


def _made(head: type[HashHead], in_features: int, lengths: Sequence[int], batch_norm: bool) -> HashHead:
    """Create the head, which may come from a plugin, and try it on one feature."""
    try:
        made = head(in_features, lengths, batch_norm)
        with torch.no_grad():
            columns = made.eval()(torch.zeros(1, in_features)).shape[1]
    except Exception as error:  # a plugin's module may raise anything
        raise NestKALAError(f"head {head.__name__} cannot be made: {one_line(error)}") from error
    if columns != made.width:
        raise NestKALAError(
            f"head {head.__name__} returns {columns} columns, expected {made.width} for codes of {list(lengths)} bits"
        )
    return made.train()
