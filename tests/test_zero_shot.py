"""Head and anchor map in closed form from the class names' embeddings."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nestkala.config import Config
from nestkala.errors import NestKALAError
from nestkala.model import HashModel
from nestkala.zero_shot import ridge_regression, start_from_text, zero_shot_labels

CLASSES, WIDTH, LENGTHS = 6, 24, (3, 8, 20)


class Joint(nn.Module):
    """A tower whose features are what it is given."""

    width, feature_dim, num_adapted = WIDTH, WIDTH, 0

    def tail(self, tokens):
        return tokens


def model(batch_norm=True, anchors=None, classes=CLASSES):
    generator = torch.Generator().manual_seed(1)
    anchors = torch.randn(classes, WIDTH, generator=generator) + 3 if anchors is None else anchors
    return HashModel(Joint(), anchors, LENGTHS, batch_norm=batch_norm).eval()


def images_of(hash_model, noise=0.0, per_class=40, seed=2):
    """Features around the anchors, in the order of the classes, off by a shift and a scale of their own."""
    generator = torch.Generator().manual_seed(seed)
    clean = hash_model.anchors.repeat_interleave(per_class, dim=0)
    drawn = clean + noise * torch.randn(clean.shape, generator=generator)
    return 7 * drawn - 50


def start(hash_model, features, labelled=None, targets=None, **settings):
    config = Config(**({"ridge": 1e-3} | settings))
    labelled = features[:0] if labelled is None else labelled
    targets = torch.zeros(0, len(hash_model.anchors)) if targets is None else targets
    return start_from_text(hash_model, features.split(32), labelled.split(32), targets, config)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_images_like_their_class_get_its_centre_at_every_length(batch_norm):
    made = model(batch_norm)
    features = images_of(made)
    centres = start(made, features)
    assert centres.shape == (CLASSES, LENGTHS[-1])
    assert len(torch.unique(centres[:, :3], dim=0)) == CLASSES
    h, _ = made(features)
    assert torch.equal(h.sign(), centres.repeat_interleave(40, dim=0))


@pytest.mark.parametrize("batch_norm", [True, False])
def test_bits_are_centred_and_of_unit_variance_over_the_images(batch_norm):
    made = model(batch_norm)
    features = images_of(made, noise=0.5)
    start(made, features)
    before_tanh = torch.atanh(made(features)[0].double())
    torch.testing.assert_close(before_tanh.mean(dim=0), torch.zeros(20, dtype=torch.double), atol=1e-4, rtol=0)
    torch.testing.assert_close(before_tanh.std(dim=0), torch.ones(20, dtype=torch.double), atol=1e-3, rtol=0)


def test_codes_do_not_depend_on_shift_and_scale_of_the_features():
    one, other = model(), model()
    features = images_of(one, noise=1.0)
    start(one, features)
    start(other, features * 0.01 + 5)
    torch.testing.assert_close(one(features)[0], other(features * 0.01 + 5)[0], atol=1e-3, rtol=0)


def test_ridge_regression_is_where_the_gradient_vanishes():
    generator = torch.Generator().manual_seed(0)
    inputs, outputs = torch.randn(5, 9, generator=generator).double(), torch.randn(5, 4, generator=generator).double()
    counts = torch.tensor([1.0, 2, 0.5, 10, 3]).double()
    solution = ridge_regression(inputs, outputs, counts, 0.7).requires_grad_()
    misfit = (counts[:, None] * (inputs @ solution.T - outputs).square()).sum()
    (gradient,) = torch.autograd.grad(misfit + 0.7 * solution.square().sum(), solution)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def test_the_head_points_where_ridge_regression_from_anchors_to_centres_does():
    made = model()
    centres = start(made, images_of(made, noise=1.0), ridge=0.5, text_weight=2.0, unlabelled_weight=0)
    inputs = made.anchors - made.anchors.mean(dim=0)
    inputs = inputs / inputs.norm(dim=1, keepdim=True)
    # The other way round: a class name that counts twice, in the dual form.
    dual = torch.linalg.solve(inputs @ inputs.T + 0.25 * torch.eye(CLASSES), centres)
    expected = dual.T @ inputs
    cosines = F.cosine_similarity(made.head.weight, expected, dim=1)
    torch.testing.assert_close(cosines, torch.ones(LENGTHS[-1]), atol=1e-5, rtol=0)


def test_names_labelled_and_unlabelled_images_are_one_weighted_regression():
    """Against least squares on stacked rows, every unlabelled image's class found by a loop."""
    made = model()
    features, few = images_of(made, noise=2.0), [0, 41, 81, 122]
    targets = torch.eye(CLASSES)[[0, 1, 2, 3]]
    settings = {"ridge": 0.5, "text_weight": 2.0, "unlabelled_weight": 0.3}
    centres = start(made, features, features[few], targets, **settings)

    texts = F.normalize(made.anchors - made.anchors.mean(dim=0), dim=1)
    images = F.normalize(features - features.mean(dim=0), dim=1)
    prototypes = [2.0 * text + sum(images[i] for i, y in zip(few, targets.argmax(1), strict=True) if y == c)
                  for c, text in enumerate(texts)]  # fmt: skip
    classes = [max(range(CLASSES), key=lambda c: F.cosine_similarity(x, prototypes[c], dim=0).item()) for x in images]
    assert sum(c != i // 40 for i, c in enumerate(classes)) > 10  # some are mistaken
    rows = [(2.0, text, centre) for text, centre in zip(texts, centres, strict=True)]
    rows += [(1.0, images[i], centres[y]) for i, y in zip(few, targets.argmax(1), strict=True)]
    rows += [(0.3, x, centres[c]) for x, c in zip(images, classes, strict=True)]
    inputs = torch.stack([weight**0.5 * x for weight, x, _ in rows] + list(0.5**0.5 * torch.eye(WIDTH)))
    outputs = torch.stack([weight**0.5 * y for weight, _, y in rows] + [torch.zeros(LENGTHS[-1])] * WIDTH)
    expected = torch.linalg.lstsq(inputs.double(), outputs.double()).solution.T.float()
    cosines = F.cosine_similarity(made.head.weight, expected, dim=1)
    torch.testing.assert_close(cosines, torch.ones(LENGTHS[-1]), atol=1e-5, rtol=0)


def test_anchors_in_code_space_have_the_centres_signs_and_the_best_scale():
    torch.manual_seed(0)
    anchors = torch.linalg.qr(torch.randn(WIDTH, CLASSES)).Q.T + 2.0  # equally far from their mean
    made = model(anchors=anchors)
    centres = start(made, images_of(made), ridge=1e-6)
    texts = made.anchor_to_code(made.anchors)

    def misfit(scale):
        products = [scale * centres[:, :b] @ centres[:, :b].T for b in LENGTHS]
        return sum((torch.eye(CLASSES) - product).square().sum() for product in products).item()

    balanced = centres.sum(dim=0) == 0  # what centred anchors can reach
    scale = texts[:, balanced].abs().mean().item()
    assert torch.equal(texts.sign(), centres)
    assert misfit(scale) < min(misfit(scale * 0.97), misfit(scale * 1.03))


def test_labelled_images_bend_the_head_towards_themselves():
    """Images whose mean direction is off the class name's: with labels their codes come closer to the centres."""
    made, generator = model(), torch.Generator().manual_seed(3)
    classes = torch.arange(CLASSES).repeat_interleave(40)
    off = made.anchors + 1.5 * torch.randn(made.anchors.shape, generator=generator)
    features = off[classes] + 0.5 * torch.randn(len(classes), WIDTH, generator=generator)
    one_hot = torch.eye(CLASSES)[classes]

    def share_of_right_bits(**settings):
        fresh = model()
        centres = start(fresh, features, ridge=1.0, unlabelled_weight=0, **settings)
        return (fresh(features)[0].sign() == centres[classes]).float().mean().item()

    few = torch.arange(0, len(classes), 10)
    without = share_of_right_bits()
    with_some = share_of_right_bits(labelled=features[few], targets=one_hot[few])
    little_text = share_of_right_bits(labelled=features[few], targets=one_hot[few], text_weight=0.1)
    assert without < with_some < little_text


def test_an_image_of_two_classes_pulls_the_bits_that_both_have():
    made = model()
    features = images_of(made, noise=0.3)
    targets = torch.zeros(1, CLASSES)
    targets[0, [0, 1]] = 1
    centres = start(made, features, features[5:6], targets, text_weight=1e-4, unlabelled_weight=0)
    agree = centres[0] == centres[1]
    h = made(features[5:6])[0][0]
    assert torch.equal(h[agree].sign(), centres[0][agree])
    assert h[~agree].abs().max() < h[agree].abs().min()


def test_the_seed_draws_the_centres():
    one, same, other = model(), model(), model()
    features = images_of(one)
    assert torch.equal(start(one, features, seed=1), start(same, features, seed=1))
    assert not torch.equal(start(one, features, seed=1), start(other, features, seed=2))


def test_anchors_of_another_width_are_refused():
    made = model(anchors=torch.randn(CLASSES, WIDTH + 1))
    with pytest.raises(NestKALAError, match=r"widths are 25 and 24: say --head-init random"):
        start(made, torch.randn(50, WIDTH))


def test_one_class_is_refused():
    made = model(classes=1)
    with pytest.raises(NestKALAError, match="two classes or more"):
        start(made, torch.randn(50, WIDTH))


def test_images_that_are_all_alike_are_refused():
    made = model()
    with pytest.raises(NestKALAError, match="these 50 do not"):
        start(made, torch.ones(50, WIDTH))


def test_zero_shot_labels_are_the_nearest_centred_text_by_cosine():
    generator = torch.Generator().manual_seed(0)
    features, texts = torch.randn(50, 7, generator=generator) + 4, torch.randn(4, 7, generator=generator) - 2
    centred = [[x - m for x, m in zip(row, features.mean(dim=0).tolist(), strict=True)] for row in features.tolist()]
    directions = texts - texts.mean(dim=0)
    for row, found in zip(centred, zero_shot_labels(features, texts).tolist(), strict=True):
        cosines = [F.cosine_similarity(torch.tensor(row), direction, dim=0).item() for direction in directions]
        assert found == cosines.index(max(cosines))
