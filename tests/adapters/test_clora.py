"""CLoRA against attention with an explicit W + dW for every image, and its picks against sorted cosines."""

import math

import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer as OpenCLIPVisionTransformer
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer

from nestkala.adapters import CLoRA
from nestkala.backbones.open_clip import OpenCLIPTower
from nestkala.backbones.timm import TimmTower
from nestkala.modeling.model import HashModel
from nestkala.utils.errors import NestKALAError

WIDTH, HEADS, DEPTH, CLASSES, TEXT_WIDTH = 16, 2, 3, 6, 5
ADAPTED = [("q",), ("k",), ("v",), ("o",), ("k", "v"), ("v", "o", "q", "k")]


def open_clip_tower(num_adapted):
    vit = OpenCLIPVisionTransformer(
        image_size=24, patch_size=8, width=WIDTH, layers=DEPTH, heads=HEADS, mlp_ratio=2, output_dim=7
    )
    return OpenCLIPTower(vit, num_adapted)


def timm_tower(num_adapted):
    vit = TimmVisionTransformer(
        img_size=24,
        patch_size=8,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        num_classes=0,
        reg_tokens=2,
        qk_norm=True,
        init_values=0.5,
    )
    return TimmTower(vit, num_adapted)


TOWERS = {"open_clip": open_clip_tower, "timm": timm_tower}


def randomized(module, generator):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return module.double()


def build(library, projections=("k", "v"), rank=1, num_adapted=1, scale=1.5, seed=0):
    """A HashModel whose every parameter is drawn anew in float64, and tokens for it."""
    generator = torch.Generator().manual_seed(seed)
    tower = TOWERS[library](num_adapted)
    adapter = CLoRA(WIDTH, num_adapted, projections, rank, scale, tower.num_prefix_tokens)
    anchors = torch.randn(CLASSES, TEXT_WIDTH, generator=generator)
    model = randomized(HashModel(tower, anchors, (2, 4), adapter), generator)
    tokens = torch.randn(4, 9 + tower.num_prefix_tokens, WIDTH, generator=generator, dtype=torch.float64)
    return model, tokens


def frozen_parts(library, block):
    if library == "open_clip":
        attention = block.attn
        packed, bias, out, norms = attention.in_proj_weight, attention.in_proj_bias, attention.out_proj, (None, None)
        first, second, scales = block.ln_1, block.ln_2, (lambda x: x, lambda x: x)
    else:
        attention = block.attn
        packed, bias, out = attention.qkv.weight, attention.qkv.bias, attention.proj
        norms, first, second, scales = (
            (attention.q_norm, attention.k_norm),
            block.norm1,
            block.norm2,
            (block.ls1, block.ls2),
        )
    if bias is None:
        bias = torch.zeros(3 * WIDTH, dtype=torch.float64)
    weights = dict(zip("qkvo", [*packed.split(WIDTH), out.weight], strict=True))
    biases = dict(zip("qkvo", [*bias.split(WIDTH), out.bias], strict=True))
    return weights, biases, norms, first, second, scales, block.mlp


def picked_rows(x, directions, rank, num_prefix):
    """x (t, d): the rows of largest cosine to the mean patch token, in descending order, as they are."""
    with torch.no_grad():
        mean = x[num_prefix:].mean(dim=0)
        cosines = [(mean @ k / (mean.norm() * k.norm())).item() for k in directions]
    order = sorted(range(len(cosines)), key=lambda c: -cosines[c])
    return [directions[c] for c in order[:rank]]


def adapted_block(library, block, adapter, q, directions, x):
    """One image's tokens (t, d) through a block whose projections are W + dW, (d, d) built."""
    weights, biases, norms, first, second, (scale1, scale2), mlp = frozen_parts(library, block)

    def project(name, y):
        weight = weights[name]
        if name in adapter.projections:
            rows = picked_rows(y, directions, adapter.rank, adapter.num_prefix_tokens)
            factors = q[adapter.projections.index(name)]
            update = sum(torch.outer(k, factor) for k, factor in zip(rows, factors, strict=True))
            weight = weight + adapter.scale * update
        return y @ weight.T + biases[name]

    y = first(x)
    queries, keys, values = project("q", y), project("k", y), project("v", y)
    attended = []
    size = WIDTH // HEADS
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        one_q, one_k = queries[:, part], keys[:, part]
        if norms[0] is not None:
            one_q, one_k = norms[0](one_q), norms[1](one_k)
        attended.append(torch.softmax(one_q @ one_k.T / math.sqrt(size), dim=1) @ values[:, part])
    x = x + scale1(project("o", torch.cat(attended, dim=1)))
    return x + scale2(mlp(second(x)))


def slow_features(library, model, tokens):
    vit, adapter = model.tower.vit, model.adapter
    directions = model.anchor_to_token.coordinates @ model.anchor_to_token.weight.T + model.anchor_to_token.bias
    blocks = vit.transformer.resblocks if library == "open_clip" else vit.blocks
    images = []
    for x in tokens:
        for block, q in zip(blocks[DEPTH - len(adapter.q) :], adapter.q, strict=True):
            x = adapted_block(library, block, adapter, q, directions, x)
        images.append(vit.ln_post(x)[0] @ vit.proj if library == "open_clip" else vit.norm(x)[0])
    return torch.stack(images)


@pytest.mark.parametrize("num_adapted", [1, 2, 3])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("projections", ADAPTED, ids="".join)
@pytest.mark.parametrize("library", TOWERS)
def test_features_equal_explicit_updates_image_by_image(library, projections, rank, num_adapted):
    model, tokens = build(library, projections, rank, num_adapted)
    features = model.features(tokens)
    torch.testing.assert_close(features, slow_features(library, model, tokens), rtol=1e-9, atol=1e-10)
    frozen = model.tower.tail(tokens)
    assert (features - frozen).abs().max() > 1e-3


@pytest.mark.parametrize("projections", ADAPTED, ids="".join)
@pytest.mark.parametrize("library", TOWERS)
def test_gradients_equal_those_of_explicit_updates(library, projections):
    model, tokens = build(library, projections, rank=2, num_adapted=2)
    leaves = [*model.adapter.parameters(), *model.anchor_to_token.parameters()]
    ours, theirs = (
        torch.autograd.grad((features**2).sum(), leaves)
        for features in (model.features(tokens), slow_features(library, model, tokens))
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)
        assert one.abs().max() > 0


@pytest.mark.parametrize("library", TOWERS)
def test_the_frozen_tower_gets_no_gradient(library):
    model, tokens = build(library, "qkvo")
    model.features(tokens).sum().backward()
    assert all(parameter.grad is None for parameter in model.tower.parameters())


@pytest.mark.parametrize("library", TOWERS)
@pytest.mark.parametrize("off", ["scale", "init"])
def test_without_update_the_model_is_the_frozen_one(library, off):
    tower = TOWERS[library](2)
    scale, init = (0.0, "linear") if off == "scale" else (1.0, "zero")
    adapter = CLoRA(WIDTH, 2, "qkvo", 2, scale, tower.num_prefix_tokens, init)
    model = HashModel(tower, torch.randn(CLASSES, TEXT_WIDTH), (4,), adapter)
    tokens = torch.randn(4, 9 + tower.num_prefix_tokens, WIDTH)
    torch.testing.assert_close(model.features(tokens), tower.tail(tokens), rtol=0, atol=1e-6)


def test_q_starts_like_a_linear_layer_one_set_a_projection_and_block():
    adapter = CLoRA(400, 2, ("q", "k", "v"), rank=5)
    bound = 1 / math.sqrt(400)  # of nn.Linear
    assert [q.shape for q in adapter.q] == [(3, 5, 400)] * 2
    for q in adapter.q:
        assert q.requires_grad
        assert q.abs().max() <= bound
        assert q.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not torch.equal(*adapter.q)


def test_default_adapts_keys_and_values_at_rank_one_and_scale_one():
    adapter = CLoRA(WIDTH, 1)
    assert (adapter.projections, adapter.rank, adapter.scale) == (("k", "v"), 1, 1.0)


def bound_adapter(directions, rank, num_prefix=2, scale=1.0):
    """One adapter of the values whose q_i are 10^i e_0: tokens with 1 in front make sum_i 10^i k_i of its picks."""
    adapter = CLoRA(directions.shape[1], 1, ("v",), rank, scale, num_prefix).double()
    with torch.no_grad():
        adapter.q[0].zero_()
        adapter.q[0][0, :, 0] = 10.0 ** torch.arange(rank)
    (bound,) = adapter.bind(directions)
    return adapter, bound


def tokens_with_one_in_front(generator, batch=8):
    x = torch.randn(batch, 7, WIDTH, generator=generator, dtype=torch.float64)
    x[:, :, 0] = 1
    return x


@pytest.mark.parametrize("rank", [1, 2, 3, CLASSES])
def test_picks_are_unnormalized_and_in_descending_order_of_cosine(rank):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.logspace(-2, 2, CLASSES).double()[:, None]
    directions = torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64) * lengths
    x = tokens_with_one_in_front(generator)
    _, bound = bound_adapter(directions, rank, scale=0.5)
    deltas = bound(x, ("q", "k", "v"))
    assert deltas.keys() == {"v"}
    for image, delta in zip(x, deltas["v"], strict=True):
        rows = picked_rows(image, directions, rank, num_prefix=2)
        expected = 0.5 * sum(10.0**i * row for i, row in enumerate(rows))
        torch.testing.assert_close(delta, expected.expand(7, WIDTH), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("num_prefix", [0, 1, 3])
def test_prefix_tokens_have_no_say_in_the_pick(num_prefix):
    directions = torch.eye(WIDTH, dtype=torch.float64)[:CLASSES] + torch.eye(WIDTH)[0]
    x = torch.zeros(1, 7, WIDTH, dtype=torch.float64)
    x[:, :, 0] = 1
    x[:, num_prefix:, 4] = 1  # the patches are of class 4
    x[:, :num_prefix, 2] = 1000  # the prefix of class 2
    _, bound = bound_adapter(directions, 1, num_prefix)
    torch.testing.assert_close(bound(x, ("v",))["v"][0, -1], directions[4])
    if num_prefix:
        _, misled = bound_adapter(directions, 1, num_prefix=0)
        torch.testing.assert_close(misled(x, ("v",))["v"][0, -1], directions[2])


def test_every_image_picks_for_itself():
    generator = torch.Generator().manual_seed(1)
    directions = torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64)
    x = tokens_with_one_in_front(generator)
    _, bound = bound_adapter(directions, 2)
    whole = bound(x, ("v",))["v"]
    torch.testing.assert_close(whole, torch.cat([bound(image[None], ("v",))["v"] for image in x]))
    assert len(whole[:, 0].unique(dim=0)) > 1


def test_gradients_reach_the_picked_rows_alone_and_never_through_the_pick():
    generator = torch.Generator().manual_seed(2)
    directions = torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64).requires_grad_()
    x = tokens_with_one_in_front(generator, batch=2).requires_grad_()
    adapter, bound = bound_adapter(directions, 2)
    seed = torch.randn(2, 7, WIDTH, generator=generator, dtype=torch.float64)
    bound(x, ("v",))["v"].backward(seed)

    q = adapter.q[0][0].detach()
    for_directions, for_x, for_q = torch.zeros(CLASSES, WIDTH).double(), torch.zeros(2, 7, WIDTH).double(), 0 * q
    picked = set()
    for b in range(2):
        for i, row in enumerate(picked_rows(x[b].detach(), directions.detach(), 2, num_prefix=2)):
            c = next(c for c in range(CLASSES) if torch.equal(directions[c], row))
            picked.add(c)
            for t in range(7):
                for_directions[c] += (q[i] @ x[b, t].detach()) * seed[b, t]
                for_x[b, t] += q[i] * (row @ seed[b, t])
                for_q[i] += x[b, t].detach() * (row @ seed[b, t])
    torch.testing.assert_close(directions.grad, for_directions)
    torch.testing.assert_close(x.grad, for_x)
    torch.testing.assert_close(adapter.q[0].grad[0], for_q)
    others = sorted(set(range(CLASSES)) - picked)
    assert others
    assert torch.equal(directions.grad[others], torch.zeros(len(others), WIDTH).double())


def test_only_the_projections_asked_for_are_updated():
    adapter = CLoRA(WIDTH, 1, ("o", "k"))
    (bound,) = adapter.bind(torch.randn(CLASSES, WIDTH))
    x = torch.randn(2, 5, WIDTH)
    assert bound(x, ("q", "k", "v")).keys() == {"k"}
    assert bound(x, ("o",)).keys() == {"o"}
    assert bound(x, ("q", "v")) == {}


def test_directions_are_the_anchors_through_f_and_change_with_it():
    model, tokens = build("timm", rank=2)
    before = model.features(tokens).detach()
    with torch.no_grad():
        model.anchor_to_token.bias += 0.5
    assert (model.features(tokens) - before).abs().max() > 1e-4


@pytest.mark.parametrize(("rank", "good"), [(CLASSES, True), (CLASSES + 1, False)])
def test_rank_is_at_most_the_number_of_classes(rank, good):
    tower = timm_tower(1)
    adapter = CLoRA(WIDTH, 1, rank=rank, num_prefix_tokens=tower.num_prefix_tokens)
    anchors = torch.randn(CLASSES, TEXT_WIDTH)
    if good:
        model = HashModel(tower, anchors, (4,), adapter)
        assert torch.isfinite(model.features(torch.randn(2, 12, WIDTH))).all()
    else:
        with pytest.raises(NestKALAError, match=f"rank is {rank}, but can be at most the number of classes, {CLASSES}"):
            HashModel(tower, anchors, (4,), adapter)


def test_as_many_adapters_as_adapted_blocks_are_needed():
    adapter = CLoRA(WIDTH, 1, num_prefix_tokens=3)
    with pytest.raises(NestKALAError, match="the adapter has 1 blocks, but the tail has 2"):
        HashModel(timm_tower(2), torch.randn(CLASSES, TEXT_WIDTH), (4,), adapter)


def test_autocast_stays_close_to_full_precision():
    model, tokens = build("timm", rank=2)
    model, tokens = model.float(), tokens.float()
    exact = model.features(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.features(tokens)
    error = (rough.float() - exact).norm() / exact.norm()
    assert torch.isfinite(F.relu(rough)).all()
    assert error < 0.2
