"""Adapters, anchors, hash centers and the start in closed form, over shapes and numbers."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from strategies import multi_hot
from torch import Tensor, nn

from nestkala.adapters import CLoRA, LoRA, Prompts
from nestkala.losses import hash_centers, majority_centers, nested_centers
from nestkala.modeling.model import HashModel
from nestkala.settings.config import Config
from nestkala.training.anchors import orthonormal_anchors
from nestkala.training.closed_form import closed_form
from nestkala.training.zero_shot import zero_shot_labels
from nestkala.utils.errors import NestKALAError

PROJECTIONS = ("q", "k", "v", "o")


class Joint(nn.Module):
    """A tower whose features are what it is given."""

    num_adapted = 0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = self.feature_dim = width

    def tail(self, tokens: Tensor) -> Tensor:
        return tokens


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def rows(draw: st.DrawFn, num: int, width: int) -> Tensor:
    """Features or anchors: in general position, constant, one that differs, alike in pairs, zero; of any size."""
    x = normal(num, width, seed=draw(st.integers(0, 99)))
    match draw(st.sampled_from(["general", "constant", "equal rows", "one differs", "zero", "far off"])):
        case "constant":
            x = torch.full_like(x, 0.1)
        case "equal rows":
            x = x[:1].repeat(num, 1)
        case "one differs":
            x[1:] = x[:1]
            x[-1:] += 1
        case "zero":
            x = 0 * x
        case "far off":
            x = x + 1e9
    return x * draw(st.sampled_from([1.0, 1e-10, 1e10, 1e-30, 1e30]))


def before_closed_form(anchors: Tensor, lengths: list[int]) -> HashModel:
    return HashModel(Joint(anchors.shape[1]), anchors, lengths, class_layer=True).eval()  # type: ignore[arg-type]


@given(st.data())
def test_a_start_in_closed_form_is_finite_or_an_error(data: st.DataObject) -> None:
    width, classes, labeled, unlabeled = (
        data.draw(st.integers(*range_)) for range_ in ((1, 9), (1, 6), (0, 5), (0, 30))
    )
    lengths = data.draw(st.lists(st.integers(1, 24), min_size=1, max_size=3, unique=True).map(sorted))
    model = before_closed_form(data.draw(rows(classes, width)), lengths)
    images, known = data.draw(rows(unlabeled, width)), data.draw(rows(labeled, width))
    targets = data.draw(multi_hot(labeled, classes))
    changes: dict[str, Any] = {"class_bits": data.draw(st.none() | st.integers(1, 30))}
    if data.draw(st.booleans()):
        changes["head_init"] = "labels"
    config = Config(**changes)
    try:
        start = closed_form(model, [images], [known], targets, config, seed=0, has_texts=config.has_texts)
    except NestKALAError:
        return
    start.apply(model)
    assert (start.class_codes.abs() == 1).all()
    assert start.accuracy is None or 0 <= start.accuracy <= 1
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    h, anchors = model(torch.cat([images, known]))
    assert h.isfinite().all()
    assert anchors.isfinite().all()


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_features_that_are_not_finite_are_told_as_such(wrong: float) -> None:
    model, images = before_closed_form(normal(3, 4), [8]), normal(20, 4)
    images[3, 1] = images[7, 0] = wrong
    with pytest.raises(NestKALAError, match="needs finite features, but those of 2 images are not"):
        closed_form(model, [images], [], torch.zeros(0, 3), Config(), seed=0, has_texts=True)


@pytest.mark.parametrize("anchors", [torch.zeros(3, 4), torch.full((3, 4), 0.1), normal(1, 4).repeat(3, 1)])
def test_anchors_that_are_all_alike_are_refused(anchors: Tensor) -> None:
    with pytest.raises(NestKALAError, match="needs anchors that differ, but these 3 do not"):
        closed_form(
            before_closed_form(anchors, [8]), [normal(20, 4)], [], torch.zeros(0, 3), Config(), seed=0, has_texts=True
        )


def test_without_texts_anchors_that_are_all_alike_do_no_harm() -> None:
    model, known = before_closed_form(torch.zeros(2, 4), [8]), normal(6, 4)
    targets, config = torch.eye(2).repeat(3, 1), Config(head_init="labels")
    closed_form(model, [normal(20, 4)], [known], targets, config, seed=0, has_texts=False).apply(model)
    h, anchors = model(known)
    assert h.isfinite().all()
    assert anchors.isfinite().all()


@given(st.integers(0, 8), st.integers(1, 5), st.integers(1, 6), st.integers(0, 99))
def test_zero_shot_labels_are_the_largest_cosine(num: int, classes: int, width: int, seed: int) -> None:
    features, texts = normal(num, width, seed=seed).double(), normal(classes, width, seed=seed + 1).double()
    found = zero_shot_labels(features, texts)
    assert found.shape == (num,)
    if num > 1 and classes > 1:
        centered = features - features.mean(dim=0), texts - texts.mean(dim=0)
        cosines = F.cosine_similarity(centered[0][:, None], centered[1][None], dim=2)
        torch.testing.assert_close(cosines[torch.arange(num), found], cosines.max(dim=1).values)


@given(st.integers(1, 40), st.integers(1, 24), st.integers(0, 2**31 - 1))
def test_orthonormal_anchors_have_unit_norm_and_are_orthogonal_where_they_can_be(
    classes: int, width: int, seed: int
) -> None:
    anchors = orthonormal_anchors(classes, width, seed)
    gram = anchors.double() @ anchors.double().T
    torch.testing.assert_close(gram.diag(), torch.ones(classes).double(), rtol=0, atol=1e-5)
    if classes <= width:
        torch.testing.assert_close(gram, torch.eye(classes).double(), rtol=0, atol=1e-5)
    assert torch.equal(anchors, orthonormal_anchors(classes, width, seed))


@given(st.integers(1, 20), st.integers(1, 10), st.integers(0, 99))
def test_centers_are_signs_and_differ_as_far_as_there_are_words(classes: int, bits: int, seed: int) -> None:
    for centers in (f(classes, bits, torch.Generator().manual_seed(seed)) for f in (nested_centers, hash_centers)):
        assert centers.shape == (classes, bits)
        assert (centers.abs() == 1).all()
    used = torch.unique(centers, dim=0, return_counts=True)[1]  # of `hash_centers`, which promises it
    assert len(used) == min(classes, 2**bits)
    assert used.max() - used.min() <= 1


@pytest.mark.parametrize("make", [nested_centers, hash_centers])
@pytest.mark.parametrize(("classes", "bits", "said"), [(0, 4, "num_classes"), (-1, 4, "num_classes"), (4, 0, "bits")])
def test_centers_of_no_class_or_no_bit_are_refused(make: Any, classes: int, bits: int, said: str) -> None:
    with pytest.raises(ValueError, match=f"{said} must be a whole number of 1 or more, not"):
        make(classes, bits, torch.Generator())


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 9), st.data())
def test_majority_centers_are_votes(num: int, classes: int, bits: int, data: st.DataObject) -> None:
    targets, centers = data.draw(multi_hot(num, classes)), normal(classes, bits).sign()
    for row, code in zip(targets.tolist(), majority_centers(targets, centers).tolist(), strict=True):
        votes = [sum(centers[c, k].item() for c, y in enumerate(row) if y) for k in range(bits)]
        assert code == [(vote > 0) - (vote < 0) for vote in votes]


@given(st.data())
def test_adapters_give_finite_updates_and_gradients_of_any_precision(data: st.DataObject) -> None:
    width, batch, patches, classes = (data.draw(st.integers(1, most)) for most in (8, 4, 5, 5))
    projections = data.draw(st.lists(st.sampled_from(PROJECTIONS), min_size=1, unique=True))
    rank, dtype = data.draw(st.integers(1, classes)), data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    x = data.draw(rows(batch * (patches + 1), width)).clamp(-1e9, 1e9).view(batch, patches + 1, width).to(dtype)
    directions = data.draw(rows(classes, width)).clamp(-1e9, 1e9).to(dtype).requires_grad_()
    given_: list[Any] = [width, 1, projections, rank, 0.5]
    for adapter in (CLoRA(*given_).to(dtype), LoRA(*given_).to(dtype)):
        blocks = adapter.bind(directions)
        deltas = blocks[0](x, PROJECTIONS)
        assert deltas.keys() == set(projections)
        assert all(delta.shape == x.shape and delta.isfinite().all() for delta in deltas.values())
        sum(delta.double().mean() for delta in deltas.values()).backward()  # type: ignore[union-attr]
        assert all(parameter.grad.isfinite().all() for parameter in adapter.parameters())
    if rank == 1 and projections == ["k"] and dtype == torch.float32:
        assert not deltas["k"].any()  # LoRA starts at the frozen model
    tokens = Prompts(width, 2, number=rank).prompts()
    assert [token.shape for token in tokens] == [(rank, width)] * 2
