"""The trained model: what it is made of, what of it is saved, and how it joins processes."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from nestkala.adapters import CLoRA
from nestkala.backbones.timm import TimmTower
from nestkala.modeling.model import HashModel
from nestkala.utils.errors import NestKALAError

WIDTH, CLASSES, TEXT_WIDTH, LENGTHS = 16, 5, 6, (2, 3, 8)
OWN = {"anchors", "anchor_to_code.weight", "anchor_to_code.bias", "head.linear.weight", "head.linear.bias"}
ADAPTER = {"adapter.q.0", "anchor_to_token.coordinates", "anchor_to_token.weight", "anchor_to_token.bias"}
NORM = {f"head.norm.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


def build(seed=0, adapter=True, batch_norm=False, lengths=LENGTHS, tower_seed=0, tower_outputs=0):
    with torch.random.fork_rng():
        torch.manual_seed(tower_seed)
        vit = VisionTransformer(
            img_size=16,
            patch_size=8,
            embed_dim=WIDTH,
            depth=2,
            num_heads=2,
            num_classes=tower_outputs,
            drop_rate=0.5,
            proj_drop_rate=0.5,
            drop_path_rate=0.5,
        )
        torch.manual_seed(seed)
        clora = CLoRA(WIDTH, 1, rank=2) if adapter else None
        anchors = torch.randn(CLASSES, TEXT_WIDTH)
        return HashModel(TimmTower(vit, num_adapted=1), anchors, lengths, clora, batch_norm)


def half_tokens(batch=4, seed=3):
    return torch.randn(batch, 5, WIDTH, generator=torch.Generator().manual_seed(seed)).half()


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("adapter", [False, True])
def test_trained_state_is_everything_but_the_tower(adapter, batch_norm):
    model = build(adapter=adapter, batch_norm=batch_norm)
    state = model.trained_state()
    assert state.keys() == OWN | (ADAPTER if adapter else set()) | (NORM if batch_norm else set())
    of_tower = {tensor.data_ptr() for tensor in model.tower.state_dict().values()}
    assert not of_tower & {tensor.data_ptr() for tensor in state.values()}


@pytest.mark.parametrize("adapter", [False, True])
def test_what_is_trained_is_the_adapter_the_anchor_maps_and_the_head(adapter):
    model = build(adapter=adapter)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == (OWN | (ADAPTER if adapter else set())) - {"anchors", "anchor_to_token.coordinates"}


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("adapter", [False, True])
def test_trained_state_makes_another_model_on_the_same_tower_the_same(adapter, batch_norm):
    one, other = (build(seed, adapter, batch_norm) for seed in (0, 1))
    one.train()(half_tokens(8))  # moves BatchNorm's moments
    results = [model.eval()(half_tokens()) for model in (one, other)]
    assert not torch.equal(results[0][0], results[1][0])
    assert not torch.equal(results[0][1], results[1][1])
    other.load_trained_state({name: value.clone() for name, value in one.trained_state().items()})
    h, anchors = other(half_tokens())
    assert torch.equal(h, results[0][0])
    assert torch.equal(anchors, results[0][1])


def test_loading_leaves_the_tower_as_it_is():
    one, other = build(0), build(1, tower_seed=1)
    before = {name: value.clone() for name, value in other.tower.state_dict().items()}
    other.load_trained_state(one.trained_state())
    assert all(torch.equal(before[name], value) for name, value in other.tower.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("adapter.q.0"), r"adapter\.q\.0 is absent, expected \(2, 2, 16\)"),
        (lambda state: state.update(extra=torch.zeros(2, 3)), r"extra is \(2, 3\), expected absent"),
        (lambda state: state.update(anchors=torch.zeros(7, 6)), r"anchors is \(7, 6\), expected \(5, 6\)"),
        (lambda state: state.clear(), r"adapter\.q\.0 is absent"),
    ],
    ids=["absent", "unknown", "another shape", "empty"],
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_is_loaded(change, message):
    model, state = build(0), build(1).trained_state()
    before = {name: value.clone() for name, value in model.trained_state().items()}
    change(state)
    with pytest.raises(NestKALAError, match=f"the saved model does not fit: {message}"):
        model.load_trained_state(state)
    assert all(torch.equal(before[name], value) for name, value in model.trained_state().items())


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("adapter", [False, True])
def test_forward_gives_codes_in_the_open_unit_interval_and_anchors_in_code_space(adapter, batch_norm):
    model = build(adapter=adapter, batch_norm=batch_norm)
    h, anchors = model(half_tokens(4))
    assert h.shape == (4, 8)
    assert anchors.shape == (CLASSES, 8)
    assert h.dtype == anchors.dtype == torch.float32
    assert h.abs().max() < 1
    torch.testing.assert_close(
        anchors, model.anchors @ model.anchor_to_code.weight.T + model.anchor_to_code.bias, rtol=1e-5, atol=1e-7
    )


def test_codes_are_the_head_of_the_features():
    model = build().eval()
    tokens = half_tokens()
    expected = torch.tanh(model.features(tokens.float()) @ model.head.weight.T + model.head.linear.bias)
    torch.testing.assert_close(model(tokens)[0], expected)


def test_anchor_to_code_starts_normal_with_deviation_001_and_bias_zero():
    tower = build().tower
    G = HashModel(tower, torch.randn(3, 400), (300,)).anchor_to_code
    assert G.weight.shape == (300, 400)
    assert G.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert G.weight.mean().abs().item() < 2e-4
    assert torch.equal(G.bias, torch.zeros(300))


def test_anchor_to_token_starts_like_a_linear_layer():
    F = build().anchor_to_token
    bound = TEXT_WIDTH**-0.5
    assert F.weight.shape == (WIDTH, CLASSES)  # fewer than TEXT_WIDTH
    assert F.weight.square().mean().item() == pytest.approx(bound**2 / 3, rel=0.3)  # uniform in -bound..bound
    assert 0 < F.bias.abs().max() <= bound


def test_weights_of_earlier_versions_give_the_same_features():
    model = build().eval()
    generator = torch.Generator().manual_seed(3)
    W, b = torch.randn(WIDTH, TEXT_WIDTH, generator=generator), torch.randn(WIDTH, generator=generator)
    state = {name: value for name, value in model.trained_state().items() if not name.endswith("coordinates")}
    model.load_trained_state(state | {"anchor_to_token.weight": W, "anchor_to_token.bias": b})
    assert model.anchor_to_token is not None
    torch.testing.assert_close(model.anchor_to_token(), model.anchors @ W.T + b)
    with pytest.raises(NestKALAError, match=r"anchor_to_token\.coordinates is absent"):
        model.load_trained_state(state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_dtype_that_tokens_come_in_does_not_matter(dtype):
    model = build().eval()
    h, anchors = model(half_tokens())
    other, other_anchors = model(half_tokens().to(dtype))
    assert torch.equal(h, other)
    assert torch.equal(anchors, other_anchors)


def test_a_double_model_computes_in_double_from_half_precision_tokens():
    single, double = build().eval(), build().eval().double()
    h, anchors = double(half_tokens())
    assert h.dtype == anchors.dtype == torch.float64
    torch.testing.assert_close(h.float(), single(half_tokens())[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("tower_outputs", [0, 12])  # ending in a norm, in float32 anyway, or in a linear layer
def test_head_and_anchors_stay_in_full_precision_under_autocast(tower_outputs):
    model = build(tower_outputs=tower_outputs).eval()
    gathered = []

    def gather(features):
        gathered.append(features)
        return features

    with torch.autocast("cpu", torch.bfloat16):
        h, anchors = model(half_tokens(), gather)
    (features,) = gathered
    assert h.dtype == anchors.dtype == features.dtype == torch.float32
    torch.testing.assert_close(
        h, torch.tanh(features @ model.head.weight.T + model.head.linear.bias), rtol=1e-5, atol=1e-7
    )
    torch.testing.assert_close(
        anchors, model.anchors @ model.anchor_to_code.weight.T + model.anchor_to_code.bias, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("batch_norm", [False, True])
def test_features_are_gathered_once_before_the_head_and_with_gradient(batch_norm):
    model = build(batch_norm=batch_norm).train()
    theirs = torch.randn(3, WIDTH)
    seen = []

    def gather(features):
        seen.append(features)
        return torch.cat([features, theirs])

    h, anchors = model(half_tokens(4), gather)
    (features,) = seen
    assert features.shape == (4, WIDTH)
    torch.testing.assert_close(features, model.features(half_tokens(4).float()))
    assert h.shape == (7, 8)
    assert anchors.shape == (CLASSES, 8)
    torch.testing.assert_close(h, model.head(torch.cat([features, theirs])))
    h[:4].sum().backward()
    assert model.adapter.q[0].grad.abs().sum() > 0


def test_training_mode_does_not_reach_the_frozen_tower():
    model = build().train()
    assert model.head.training
    assert not any(module.training for module in model.tower.modules())
    assert torch.equal(model(half_tokens())[0], model(half_tokens())[0])


@pytest.mark.parametrize("lengths", [(8, 4), (0, 8), ()])
def test_lengths_that_are_no_lengths_are_an_error(lengths):
    with pytest.raises(ValueError, match="ascending whole numbers"):
        build(lengths=lengths)
