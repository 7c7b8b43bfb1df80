"""F in the span of the anchors, beside the plain linear layer that it stands for."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nestkala.modeling.class_directions import ClassDirections, in_span

WIDTH = 7


def both(classes, text_width, seed=0):
    """The anchors, the layer, and nn.Linear with the same start, in double precision."""
    anchors = torch.randn(classes, text_width, generator=torch.Generator().manual_seed(seed)).double()
    torch.manual_seed(seed)
    ours = ClassDirections(anchors, WIDTH).double()
    torch.manual_seed(seed)
    return anchors, ours, nn.Linear(text_width, WIDTH).double()


@pytest.mark.parametrize(("classes", "text_width"), [(1, 9), (3, 9), (8, 9), (9, 9), (12, 9)])
def test_it_starts_as_a_linear_layer_of_the_anchors(classes, text_width):
    anchors, ours, plain = both(classes, text_width)
    assert ours.weight.shape == (WIDTH, min(classes, text_width))
    torch.testing.assert_close(ours(), plain(anchors), rtol=1e-6, atol=1e-6)  # drawn in single precision


@pytest.mark.parametrize("norm", [0.0, 0.5])
@pytest.mark.parametrize(("classes", "alike"), [(4, False), (4, True), (12, False)])
def test_sgd_takes_the_steps_of_the_linear_layer(classes, alike, norm):
    anchors, ours, plain = both(classes, 9)
    if alike:  # a span of fewer dimensions than there are anchors
        anchors[1] = anchors[0]
        torch.manual_seed(1)
        ours = ClassDirections(anchors, WIDTH).double()
    with torch.no_grad():
        coordinates, weight = in_span(anchors, plain.weight)
        ours.coordinates.copy_(coordinates)
        ours.weight.copy_(weight)
        ours.bias.copy_(plain.bias)
    target = torch.randn(classes, WIDTH, generator=torch.Generator().manual_seed(2)).double()
    for layer, directions in ((ours, ours), (plain, lambda: plain(anchors))):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
        for step in range(20):
            optimizer.zero_grad()
            F.mse_loss(directions(), (step + 1) * target).backward()
            if norm:
                total = nn.utils.clip_grad_norm_(layer.parameters(), norm)
                assert total > norm
            optimizer.step()
    torch.testing.assert_close(ours(), plain(anchors), rtol=1e-10, atol=1e-10)
