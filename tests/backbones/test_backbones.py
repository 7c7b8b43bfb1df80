"""Cut towers against the libraries' own forward passes, and the names and errors of loading them."""

import pickle
from pathlib import Path

import huggingface_hub
import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.transformer import VisionTransformer as OpenCLIPVisionTransformer
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer import (
    ParallelScalingBlock,
    ResPostBlock,
    VisionTransformer,
)

from nestkala.backbone_names import check_name, open_clip_models, split_name
from nestkala.backbones import load_backbone
from nestkala.backbones.open_clip import OpenCLIPTower
from nestkala.backbones.timm import TimmTower
from nestkala.training.zero_shot import zero_shot_labels
from nestkala.utils.errors import NestKALAError

CLIP, SMALL_CLIP, TIMM = "ViT-B-32-quickgelu", "ViT-S-32-alt", "vit_small_patch16_224"
SENTENCES = ["a photo of a cat.", "a photo of a dog.", "x"]


@pytest.fixture(scope="module")
def clip_backbone():
    return load_backbone(f"open_clip/{CLIP}:random", 1)


@pytest.fixture(scope="module")
def timm_backbone():
    return load_backbone(f"timm/{TIMM}:random", 1)


@pytest.fixture(scope="module")
def clip():
    """A small CLIP, made by open_clip alone."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return open_clip.create_model(SMALL_CLIP).eval()


@pytest.fixture(scope="module")
def clip_file(clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "clip.safetensors"
    save_file(clip.state_dict(), path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def file_backbone(clip_file):
    return load_backbone(f"open_clip/{SMALL_CLIP}:{clip_file}", 2)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No hub, and nothing cached."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))


def images(size, seed=0, batch=2):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def small_timm(**options):
    settings = {"img_size": 24, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 0}
    return randomized(VisionTransformer(**(settings | options)))


def small_open_clip(**options):
    settings = {"image_size": 24, "patch_size": 8, "width": 16, "layers": 3, "heads": 2, "mlp_ratio": 2}
    return randomized(OpenCLIPVisionTransformer(**(settings | {"output_dim": 7} | options)))


def randomized(vit):
    """Every parameter drawn anew, so that none is at a neutral start; dropout off."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return vit.eval()


TIMM_VARIANTS = {
    "class token": {},
    "registers, average": {"reg_tokens": 4, "global_pool": "avg"},
    "no class token, average": {"class_token": False, "global_pool": "avg"},
    "average, norm before": {"global_pool": "avg", "fc_norm": False},
    "qk norm, layer scale": {"qk_norm": True, "init_values": 0.5},
    "inner norms": {"scale_attn_norm": True, "scale_mlp_norm": True},
    "pre-norm, no biases": {"pre_norm": True, "qkv_bias": False, "proj_bias": False},
    "attention pool": {"global_pool": "map"},
    "classifier": {"num_classes": 9},
    "dropout": {"proj_drop_rate": 0.5, "attn_drop_rate": 0.5, "drop_path_rate": 0.5, "drop_rate": 0.5},
    "no embedded class": {"no_embed_class": True, "reg_tokens": 1},
    "dynamic size": {"dynamic_img_size": True},
    "no final norm": {"final_norm": False},
}
OPEN_CLIP_VARIANTS = {
    "class token": {},
    "layer scale": {"ls_init_value": 0.5},
    "average": {"pool_type": "avg"},
    "average, norm after": {"pool_type": "avg", "final_ln_after_pool": True},
    "no first norm": {"no_ln_pre": True},
    "tokens returned too": {"output_tokens": True},
    "QuickGELU": {"act_layer": open_clip.transformer.QuickGELU},
}
VARIANTS = [("timm", name) for name in TIMM_VARIANTS] + [("open_clip", name) for name in OPEN_CLIP_VARIANTS]


def small(library, variant):
    if library == "timm":
        return small_timm(**TIMM_VARIANTS[variant]), TimmTower
    return small_open_clip(**OPEN_CLIP_VARIANTS[variant]), OpenCLIPTower


def own_forward(vit, pixels):
    with torch.no_grad():
        features = vit(pixels)
    return features[0] if isinstance(features, tuple) else features


def through_the_cut(tower, pixels, adapters=None):
    """Trunk and tail without the rounding to half precision between them."""
    with torch.no_grad():
        tokens = tower.embed(pixels)
        for block in tower.trunk_blocks:
            tokens = block(tokens)
        return tower.tail(tokens, adapters) if tower.num_adapted else tower.pool(tokens)


def assert_equals_own_forward(tower, pixels):
    features = through_the_cut(tower, pixels)
    assert features.shape == (len(pixels), tower.feature_dim)
    torch.testing.assert_close(features, own_forward(tower.vit, pixels), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_adapted", [0, 1, 2])
def test_open_clip_vit_equals_the_librarys_own_forward(clip_backbone, num_adapted):
    vit = clip_backbone.tower.vit
    tower = OpenCLIPTower(vit, num_adapted)
    assert_equals_own_forward(tower, images(224))
    assert (tower.width, tower.feature_dim, tower.num_prefix_tokens) == (768, 512, 1)
    assert len(tower.tail_blocks) == num_adapted


@pytest.mark.parametrize("num_adapted", [0, 1, 2])
def test_timm_vit_equals_the_librarys_own_forward(timm_backbone, num_adapted):
    tower = TimmTower(timm_backbone.tower.vit, num_adapted)
    assert_equals_own_forward(tower, images(224))
    assert (tower.width, tower.feature_dim, tower.num_prefix_tokens) == (384, 384, 1)
    assert len(tower.tail_blocks) == num_adapted


@pytest.mark.parametrize("num_adapted", [0, 1, 2, 3])
@pytest.mark.parametrize(("library", "variant"), VARIANTS)
def test_variants_of_the_plain_vit_equal_the_librarys_own_forward(library, variant, num_adapted):
    vit, make_tower = small(library, variant)
    tower = make_tower(vit, num_adapted)
    assert_equals_own_forward(tower, images(24))
    assert not torch.allclose(*through_the_cut(tower, images(24)))


@pytest.mark.parametrize(("variant", "prefix"), [("class token", 1), ("registers, average", 5)])
def test_prefix_tokens_stand_before_the_patches(variant, prefix):
    vit, make_tower = small("timm", variant)
    tower = make_tower(vit, 1)
    assert tower.num_prefix_tokens == prefix
    pixels = images(24)
    pixels[1] = pixels[0]
    pixels[1, :, 16:, 16:] += 1  # the last of nine patches
    one, other = tower.embed(pixels)
    differing = (one != other).any(dim=1).nonzero().flatten().tolist()
    assert differing == [prefix + 8]


@pytest.mark.parametrize("library", ["timm", "open_clip"])
@pytest.mark.parametrize("num_adapted", [0, 1, 3])
def test_trunk_is_the_full_precision_result_rounded_to_half(library, num_adapted):
    vit, make_tower = small(library, "class token")
    tower = make_tower(vit, num_adapted)
    with torch.no_grad():
        tokens = tower.embed(images(24))
        for block in tower.trunk_blocks:
            tokens = block(tokens)
        expected = (tokens if num_adapted else own_forward(vit, images(24))).half()
    rounded = tower.trunk(images(24))
    assert rounded.dtype == torch.float16
    torch.testing.assert_close(rounded, expected, rtol=2e-3, atol=1e-6)
    features = tower.tail(rounded.float())
    torch.testing.assert_close(features, own_forward(vit, images(24)), rtol=0.05, atol=0.02)


def test_an_adapter_of_none_leaves_a_block_as_it_is():
    tower = TimmTower(small_timm(), 2)
    seen = []

    def adapter(x, names):
        seen.append((x.shape, tuple(names)))
        return {}

    expected = own_forward(tower.vit, images(24))
    for adapters in ([None, None], [adapter, None]):
        torch.testing.assert_close(through_the_cut(tower, images(24), adapters), expected, rtol=1e-5, atol=1e-5)
    assert seen == [((2, 10, 16), ("q", "k", "v")), ((2, 10, 16), ("o",))]


@pytest.mark.parametrize("library", ["timm", "open_clip"])
def test_frozen_weights_are_shared_with_the_librarys_model_not_copied(library):
    vit, make_tower = small(library, "class token")
    own = {parameter.data_ptr(): parameter.numel() for parameter in vit.parameters()}
    tower = make_tower(vit, 2)
    cut = {parameter.data_ptr(): parameter.numel() for parameter in tower.parameters()}
    assert cut == own
    block = (vit.blocks if library == "timm" else vit.transformer.resblocks)[-1]
    packed = block.attn.qkv.weight if library == "timm" else block.attn.in_proj_weight
    assert packed.data_ptr() in {parameter.data_ptr() for parameter in tower.tail_blocks[-1].parameters()}
    before = through_the_cut(tower, images(24))
    with torch.no_grad():
        packed.mul_(1.5)
    assert not torch.allclose(through_the_cut(tower, images(24)), before)
    assert_equals_own_forward(tower, images(24))


@pytest.mark.parametrize("library", ["timm", "open_clip"])
def test_the_tower_is_frozen_and_stays_in_evaluation_mode(library):
    vit, make_tower = small(library, "class token")
    tower = make_tower(vit.train(), 1)
    parent = torch.nn.Sequential(torch.nn.Dropout(), tower)
    for train in (lambda: None, tower.train, lambda: tower.train(True), parent.train):
        train()
        assert not any(module.training for module in tower.modules())
    assert parent.training
    assert not any(parameter.requires_grad for parameter in tower.parameters())


def test_dropout_inside_the_library_stays_off():
    vit, make_tower = small("timm", "dropout")
    tower = make_tower(vit.train(), 1).train()
    assert torch.equal(through_the_cut(tower, images(24)), through_the_cut(tower, images(24)))


@pytest.mark.parametrize(
    ("library", "variant", "num_adapted", "scaled"),
    [
        ("timm", "classifier", 0, "head.weight"),
        ("timm", "classifier", 2, "pos_embed"),
        ("open_clip", "no first norm", 0, "proj"),
        ("open_clip", "no first norm", 2, "positional_embedding"),
    ],
)
def test_values_beyond_half_precision_are_an_error(library, variant, num_adapted, scaled):
    vit, make_tower = small(library, variant)
    tower = make_tower(vit, num_adapted)
    assert tower.trunk(images(24)).isfinite().all()
    with torch.no_grad():
        vit.get_parameter(scaled).mul_(1e6)
    with pytest.raises(NestKALAError, match=r"not finite in half precision \(largest magnitude \d.*65504"):
        tower.trunk(images(24))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_an_error(value):
    tower = TimmTower(small_timm(), 1)
    pixels = images(24)
    pixels[1, 0, 0, 0] = value
    with pytest.raises(NestKALAError, match="not finite in half precision"):
        tower.trunk(pixels)


def test_more_adapted_blocks_than_there_are_is_an_error():
    with pytest.raises(NestKALAError, match="adapt_blocks is 4, but the backbone has 3 blocks"):
        TimmTower(small_timm(), 4)


@pytest.mark.parametrize("block", [ParallelScalingBlock, ResPostBlock])
def test_other_blocks_cannot_be_adapted_but_serve_unadapted(block):
    vit = small_timm(block_fn=block)
    assert_equals_own_forward(TimmTower(vit, 0), images(24))
    with pytest.raises(NestKALAError, match=f"{block.__name__}.*cannot be adapted"):
        TimmTower(vit, 1)


def test_other_architectures_cannot_be_cut():
    with pytest.raises(NestKALAError, match="resnet18 is a ResNet, but only plain VisionTransformers"):
        load_backbone("timm/resnet18:random", 1)


@pytest.mark.parametrize(
    "model", ["resnet18", "convnext_atto", "mobilenetv3_small_050", "levit_128s", "swin_s3_tiny_224", "mixer_s32_224"]
)
def test_any_timm_model_serves_unadapted_by_its_pooled_features(model):
    tower = load_backbone(f"timm/{model}:random", 0).tower
    own = timm.create_model(model, pretrained=False).eval()  # with its classifier
    assert not own.load_state_dict(tower.network.state_dict(), strict=False).unexpected_keys
    pixels = images(224)
    with torch.no_grad():
        pooled = own.forward_head(own.forward_features(pixels), pre_logits=True)
    assert pooled.shape == (2, tower.feature_dim)
    torch.testing.assert_close(tower.trunk(pixels).float(), pooled, rtol=2e-3, atol=1e-4)
    assert not torch.allclose(*pooled)
    assert not any(module.training for module in tower.modules())
    with pytest.raises(NestKALAError, match=f"timm/{model} is a .*can be adapted: use --adapter none"):
        load_backbone(f"timm/{model}:random", 1)


def test_a_timm_model_that_gives_no_feature_an_image_is_refused_by_name(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **options, global_pool=""))
    with pytest.raises(
        NestKALAError, match=r"timm/resnet18 returns \(2, 512, 7, 7\) for 2 images, not one feature per image"
    ):
        load_backbone("timm/resnet18:random", 0)


def test_random_weights_are_the_same_every_time_and_leave_the_generator_alone(timm_backbone):
    before = torch.get_rng_state()
    again = load_backbone(f"timm/{TIMM}:random", 0)
    assert torch.equal(before, torch.get_rng_state())
    assert again.fingerprint == timm_backbone.fingerprint
    assert again.name == timm_backbone.name == f"timm/{TIMM}:random"


def test_fingerprint_changes_with_any_weight_and_with_the_preprocessing():
    one, other, third = (load_backbone("tiny", cut) for cut in (0, 1, 2))
    with torch.no_grad():
        other.tower.vit.blocks[0].norm1.weight[0] += 1e-3
    third.preprocessing += " "
    assert len({one.fingerprint, other.fingerprint, third.fingerprint}) == 3
    assert len(one.fingerprint) == 32
    assert load_backbone("tiny", 1).fingerprint == one.fingerprint != load_backbone("tiny:random", 1).fingerprint


def test_fingerprint_tells_the_activation_apart(clip_backbone):
    plain = load_backbone("open_clip/ViT-B-32:random", 1)
    pixels = images(224)
    same = torch.allclose(own_forward(plain.tower.vit, pixels), own_forward(clip_backbone.tower.vit, pixels), atol=1e-3)
    assert not same
    assert plain.fingerprint != clip_backbone.fingerprint


def test_weights_from_a_file_are_those_of_the_model_that_wrote_it(clip, clip_file, file_backbone):
    assert file_backbone.name == f"open_clip/{SMALL_CLIP}:{clip_file}"
    assert_equals_own_forward(file_backbone.tower, images(224))
    torch.testing.assert_close(
        own_forward(file_backbone.tower.vit, images(224)), own_forward(clip.visual, images(224)), rtol=0, atol=0
    )


def test_fingerprint_of_weights_from_a_file_is_that_of_their_origin(tmp_path):
    origin = load_backbone(f"open_clip/{SMALL_CLIP}:random", 1)
    path = tmp_path / "weights.safetensors"
    save_file(origin.embed_text.clip.state_dict(), path)
    try:
        loaded = load_backbone(f"open_clip/{SMALL_CLIP}:{path}", 2)
    finally:
        path.unlink()
    assert loaded.fingerprint == origin.fingerprint


def test_fingerprints_of_other_weights_differ(file_backbone):
    assert file_backbone.fingerprint != load_backbone(f"open_clip/{SMALL_CLIP}:random", 1).fingerprint


TAGGED = [("ViT-L-14", "laion2b_s32b_b82k"), ("ViT-H-14-quickgelu", "dfn5b"), ("ViT-B-32", "laion2b_s34b_b79k")]


@pytest.fixture(params=TAGGED, ids=str)
def tagged(request, clip_file, monkeypatch):
    """A tag of the small model, whose weights are a file, with the settings of a published one."""
    settings = open_clip.get_pretrained_cfg(*request.param) | {"quick_gelu": False}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, SMALL_CLIP, {"a_tag": settings})
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(clip_file))
    return load_backbone(f"open_clip/{SMALL_CLIP}:a_tag", 2)


def test_a_file_with_its_tag_is_the_tag(tagged, clip_file):
    loaded = load_backbone(f"open_clip/{SMALL_CLIP}/a_tag:{clip_file}", 2)
    assert loaded.name == f"open_clip/{SMALL_CLIP}/a_tag:{clip_file}"
    assert loaded.preprocessing == tagged.preprocessing
    assert loaded.fingerprint == tagged.fingerprint
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8))
    assert torch.equal(loaded.preprocess(picture), tagged.preprocess(picture))
    assert torch.equal(loaded.embed_text(SENTENCES), tagged.embed_text(SENTENCES))


def test_a_file_without_its_tag_is_warned_of_where_that_matters(tagged, clip_file, caplog):
    alone = load_backbone(f"open_clip/{SMALL_CLIP}:{clip_file}", 2)
    differs = alone.preprocessing != tagged.preprocessing
    warned = f"the weights of a_tag, use --backbone open_clip/{SMALL_CLIP}/TAG:{clip_file}" in caplog.text
    assert warned == differs
    assert (alone.fingerprint != tagged.fingerprint) == differs


def test_the_preprocessing_of_a_tag_is_not_openais():
    """What is lost with the tag, as the library knows it."""
    laion, dfn = (open_clip.get_pretrained_cfg(*each) for each in TAGGED[:2])
    assert (list(laion["mean"]), list(laion["std"]), dfn["resize_mode"]) == ([0.5] * 3, [0.5] * 3, "squash")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (f"open_clip/{CLIP}/openay:FILE", "tag of open_clip/ViT-B-32-quickgelu 'openay'; did you mean 'openai'?"),
        ("open_clip/ViT-B-32/openai:FILE", "use open_clip/ViT-B-32-quickgelu/openai:FILE"),
        (f"open_clip/{CLIP}/openai:gone.pt", "open_clip/ViT-B-32-quickgelu/openai: there is no file gone.pt"),
        (f"open_clip/{CLIP}/openai", "say open_clip/ViT-B-32-quickgelu/openai:FILE"),
        (f"open_clip/{CLIP}/openai:random", "say open_clip/ViT-B-32-quickgelu/openai:FILE"),
        (f"open_clip/{CLIP}/:FILE", "say open_clip/ViT-B-32-quickgelu/TAG:FILE"),
        ("open_clip/ViT-B-33/openai:FILE", "unknown open_clip ViT 'ViT-B-33'"),
    ],
)
def test_a_tag_that_does_not_fit_its_file_is_refused(name, told, clip_file):
    with pytest.raises(NestKALAError) as error:
        load_backbone(name.replace("FILE", str(clip_file)), 1)
    assert told in str(error.value).replace(str(clip_file), "FILE")


def test_text_tower_embeds_sentences_as_the_library_does(clip, file_backbone):
    embedded = file_backbone.embed_text(SENTENCES)
    with torch.no_grad():
        expected = clip.encode_text(open_clip.get_tokenizer(SMALL_CLIP)(SENTENCES))
    assert embedded.shape == (3, file_backbone.tower.feature_dim)
    assert embedded.dtype == torch.float32
    assert not embedded.requires_grad
    torch.testing.assert_close(embedded, expected, rtol=1e-5, atol=1e-5)
    assert (embedded.norm(dim=1) - 1).abs().max() > 1e-2


def test_open_clips_preprocessing_is_the_librarys(clip, clip_backbone):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8))
    expected = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**open_clip.get_model_preprocess_cfg(clip)), is_train=False
    )
    assert clip_backbone.preprocess(picture).shape == (3, 224, 224)
    assert torch.equal(clip_backbone.preprocess(picture), expected(picture))


def test_backbones_without_text_tower_say_so(timm_backbone):
    assert timm_backbone.embed_text is None


@pytest.mark.parametrize("num_adapted", [0, 1, 2])
def test_tiny_is_small_and_takes_images_of_32_pixels(num_adapted):
    backbone = load_backbone("tiny", num_adapted)
    assert sum(parameter.numel() for parameter in backbone.tower.vit.parameters()) <= 8_000_000
    assert_equals_own_forward(backbone.tower, images(32))
    tokens = backbone.tower.trunk(images(32))
    assert tokens.shape == ((2, backbone.tower.feature_dim) if num_adapted == 0 else (2, 16, 256))
    assert backbone.tower.tail(tokens.float()).shape == (2, backbone.tower.feature_dim)
    assert backbone.tower.num_prefix_tokens == 0


@pytest.mark.parametrize("size", [(32, 32), (45, 33), (8, 90)])
def test_tinys_preprocessing_makes_32_pixels_of_any_image(size):
    pixels = load_backbone("tiny", 1).preprocess(Image.new("RGB", size, (255, 0, 128)))
    assert pixels.shape == (3, 32, 32)
    torch.testing.assert_close(pixels[:, 5, 5], torch.tensor([2.0, -2.0, 2 * (128 / 127.5 - 1)]), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("tinny", "tiny"),
        ("open_clip/ViT-B-33:openai", "ViT-B-32"),
        ("open_clip/ViT-B-32-quikgelu:openai", "ViT-B-32-quickgelu"),
        ("open_clip/ViT-B-32-quickgelu:openay", "openai"),
        ("open_clip/ViT-B-32:laion2b_s34b_b79", "laion2b_s34b_b79k"),
        ("timm/vit_smal_patch16_224", "vit_small_patch16_224"),
        ("timm/vit_small_patch16_224:augreg_in2k", "augreg_in21k"),
        ("timm/vit_small_patch16_224:randm", "random"),
        ("tiny:randm", "random"),
    ],
)
def test_unknown_names_give_the_nearest_known_one(name, nearest):
    with pytest.raises(NestKALAError, match="unknown") as error:
        load_backbone(name, 1)
    assert f"did you mean '{nearest}'?" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "nearest"), [("open_clap/ViT-B-32:openai", "open_clip"), ("tim/vit_small_patch16_224", "timm")]
)
def test_an_unknown_library_gives_the_nearest_known_one(name, nearest):
    with pytest.raises(NestKALAError, match=f"did you mean '{nearest}"):
        load_backbone(name, 1)


@pytest.mark.parametrize("name", ["", "open_clip", "open_clip/", "timm/:x", "tiny/x", "open_clip/ViT-B-32:", ":"])
def test_names_of_another_form_list_the_forms(name):
    with pytest.raises(NestKALAError, match="open_clip/MODEL:WEIGHTS"):
        load_backbone(name, 1)


def test_open_clip_needs_weights_behind_a_colon():
    with pytest.raises(NestKALAError, match="names no weights"):
        load_backbone(f"open_clip/{CLIP}", 1)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("tiny", ("tiny", "", None)),
        ("tiny:random", ("tiny", "", "random")),
        ("timm/vit_small_patch16_224", ("timm", "vit_small_patch16_224", None)),
        ("open_clip/ViT-B-32:/data/a:b.safetensors", ("open_clip", "ViT-B-32", "/data/a:b.safetensors")),
    ],
)
def test_a_name_splits_into_library_model_and_weights(name, parts):
    assert split_name(name) == parts
    check_name(name)


def test_listed_open_clip_models_have_standard_towers_and_the_others_are_refused():
    known = open_clip_models()
    assert {CLIP, "ViT-L-14", SMALL_CLIP} <= set(known) <= set(open_clip.list_models())
    for model in ("RN50", "coca_ViT-B-32", "ViT-B-16-SigLIP", "EVA02-B-16", "xlm-roberta-base-ViT-B-32"):
        assert model in open_clip.list_models()
        with pytest.raises(NestKALAError, match="unknown open_clip ViT"):
            load_backbone(f"open_clip/{model}:random", 1)


@pytest.mark.parametrize(
    ("name", "fitting"),
    [
        ("open_clip/ViT-B-32:openai", "open_clip/ViT-B-32-quickgelu:openai"),
        ("open_clip/ViT-L-14:openai", "open_clip/ViT-L-14-quickgelu:openai"),
    ],
)
def test_weights_made_for_quickgelu_are_refused_and_the_fitting_model_named(name, fitting):
    with pytest.raises(NestKALAError, match="with QuickGELU") as error:
        load_backbone(name, 1)
    assert str(error.value).endswith(f"use {fitting}")


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        (f"open_clip/{CLIP}:openai", "timm/vit_base_patch32_clip_224.openai"),
        ("open_clip/ViT-B-32:laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("timm/vit_tiny_patch16_224:augreg_in21k", "timm/vit_tiny_patch16_224.augreg_in21k"),
        ("timm/vit_tiny_patch16_224", "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
    ],
)
@pytest.mark.usefixtures("offline")
def test_weights_that_cannot_be_had_name_what_to_fetch_in_one_line(name, repository):
    with pytest.raises(NestKALAError, match="not cached and could not be downloaded") as error:
        load_backbone(name, 1)
    assert f"download {repository} " in str(error.value)
    library, _, rest = name.partition("/")
    if library == "open_clip":
        assert f"--backbone open_clip/{rest.replace(':', '/')}:/path/to/weights.safetensors" in str(error.value)
    assert "HF_HOME" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_file_that_holds_no_weights_is_an_error_in_one_line(tmp_path, suffix):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(b"not weights")
    with pytest.raises(NestKALAError, match=f"does not contain weights of open_clip/{SMALL_CLIP}") as error:
        load_backbone(f"open_clip/{SMALL_CLIP}:{path}", 1)
    assert "\n" not in str(error.value)


def pickled(harmful, path):
    path.write_bytes(pickle.dumps(harmful))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("weights.pt", pickled),
        ("weights.safetensors", pickled),
        ("weights.npz", pickled),
        ("weights.bin", lambda harmful, path: torch.save({"state_dict": harmful}, path)),
        ("old.pt", lambda harmful, path: torch.save(harmful, path, _use_new_zipfile_serialization=False)),
        ("weights.npy", lambda harmful, path: np.save(path, np.array([harmful], dtype=object))),
    ],
)
def test_a_pickle_in_disguise_is_refused_and_not_run(tmp_path, name, write):
    class Harmful:
        def __reduce__(self):
            return (Path.mkdir, (tmp_path / "run",))

    write(Harmful(), tmp_path / name)
    with pytest.raises(NestKALAError, match=r"does not contain weights of open_clip/.* as plain") as error:
        load_backbone(f"open_clip/{SMALL_CLIP}:{tmp_path / name}", 1)
    assert "\n" not in str(error.value)
    assert "False" not in str(error.value).replace("allow_pickle=False", "")  # no advice to allow what is refused
    assert not (tmp_path / "run").exists()
    if name == "weights.pt":  # so that the test can fail
        pickle.loads((tmp_path / name).read_bytes())
        assert (tmp_path / "run").exists()


def test_a_file_that_lacks_a_weight_is_an_error_in_one_line_that_names_it(clip, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({name: value for name, value in clip.state_dict().items() if name != "visual.proj"}, path)
    try:
        with pytest.raises(NestKALAError, match="does not contain weights") as error:
            load_backbone(f"open_clip/{SMALL_CLIP}:{path}", 1)
    finally:
        path.unlink()
    assert "visual.proj" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_another_model_is_an_error_in_one_line(clip_file):
    with pytest.raises(NestKALAError, match="does not contain weights of open_clip/ViT-S-32") as error:
        load_backbone(f"open_clip/ViT-S-32:{clip_file}", 1)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(NestKALAError, match="a file's path"):
        load_backbone(f"open_clip/{SMALL_CLIP}:{tmp_path / 'none.safetensors'}", 1)


@pytest.mark.parametrize("weights", ["", ":augreg_in21k"])
def test_the_name_of_a_timm_backbone_loads_it_again(monkeypatch, weights):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **options | {"pretrained": False}))
    backbone = load_backbone(f"timm/vit_tiny_patch16_224{weights}", 1)
    again = load_backbone(backbone.name, 1)
    assert again.name == backbone.name
    assert again.fingerprint == backbone.fingerprint


def test_tiny_names_the_classes_of_cifar10_which_it_never_saw(cifar10):
    backbone = load_backbone("tiny", 0)
    names = sorted(folder.name for folder in (cifar10 / "test").iterdir())
    pixels = torch.stack(
        [
            backbone.preprocess(Image.open(path).convert("RGB"))
            for name in names
            for path in sorted((cifar10 / "test" / name).iterdir())[:150]
        ]
    )
    features = torch.cat([backbone.tower.trunk(batch) for batch in pixels.split(250)]).float()
    assert features.norm(dim=1).mean().item() == pytest.approx(10, rel=0.1)
    texts = backbone.embed_text([f"a photo of a {name}." for name in names])
    assert (zero_shot_labels(features, texts) == torch.arange(10).repeat_interleave(150)).float().mean() > 0.45
