"""LoRA, prompts, biases and full fine-tuning against the libraries' own blocks with their weights or tokens changed."""

import copy
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from open_clip.transformer import VisionTransformer as OpenCLIPVisionTransformer
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer

from nestkala import Hasher
from nestkala.adapters import LoRA, Prompts
from nestkala.backbones.open_clip import OpenCLIPTower
from nestkala.backbones.timm import TimmTower
from nestkala.data import load_dataset
from nestkala.data.splits import load_split
from nestkala.evaluation import evaluate
from nestkala.modeling.model import HashModel
from nestkala.settings.config import Config
from nestkala.training.run import train

WIDTH, HEADS, DEPTH = 16, 2, 3


def open_clip_vit():
    return OpenCLIPVisionTransformer(
        image_size=24, patch_size=8, width=WIDTH, layers=DEPTH, heads=HEADS, mlp_ratio=2, output_dim=7
    )


def timm_vit():
    return TimmVisionTransformer(
        img_size=24, patch_size=8, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0, global_pool="avg"
    )


VITS = {"open_clip": (open_clip_vit, OpenCLIPTower), "timm": (timm_vit, TimmTower)}


def drawn(library, seed=0):
    make, cut = VITS[library]
    generator = torch.Generator().manual_seed(seed)
    return randomized(make(), generator), cut, generator


def randomized(module, generator):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return module.double()


def blocks_of(vit):
    return vit.transformer.resblocks if hasattr(vit, "transformer") else vit.blocks


def projections_of(block):
    """{name: (weight, rows)} of a library's block."""
    packed, out = (
        (block.attn.in_proj_weight, block.attn.out_proj.weight)
        if hasattr(block.attn, "in_proj_weight")
        else (block.attn.qkv.weight, block.attn.proj.weight)
    )
    return {name: packed[i * WIDTH : (i + 1) * WIDTH] for i, name in enumerate("qkv")} | {"o": out}


@pytest.mark.parametrize("projections", [("k", "v"), ("o",), ("v", "q", "o", "k")])
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("library", VITS)
def test_lora_equals_the_library_with_merged_weights(library, rank, projections):
    vit, cut, generator = drawn(library)
    adapter = randomized(LoRA(WIDTH, 2, projections, rank, scale=0.7), generator)
    images = torch.randn(4, 3, 24, 24, generator=generator, dtype=torch.float64)
    merged = copy.deepcopy(vit)
    for place, block in enumerate(blocks_of(merged)[-2:]):
        weights = projections_of(block)
        for i, name in enumerate(projections):
            with torch.no_grad():
                weights[name] += 0.7 * adapter.up[place][i] @ adapter.down[place][i]
    tower = cut(vit, 2)
    tokens = tower.embed(images)
    for block in tower.trunk_blocks:
        tokens = block(tokens)
    expected = cut(merged, 0)
    expected_tokens = expected.embed(images)
    for block in blocks_of(merged):
        expected_tokens = block(expected_tokens)
    torch.testing.assert_close(tower.tail(tokens, adapter.bind()), expected.pool(expected_tokens))


@pytest.mark.parametrize("library", VITS)
def test_prompts_stand_behind_the_tokens_of_each_block_and_are_dropped(library):
    vit, cut, generator = drawn(library)
    adapter = randomized(Prompts(WIDTH, 2, number=3), generator)
    tower = cut(vit, 2)
    tokens = torch.randn(4, 10, WIDTH, generator=generator, dtype=torch.float64)
    expected = tokens
    for block, prompt in zip(blocks_of(vit)[-2:], adapter.prompts(), strict=True):
        expected = block(torch.cat([expected, torch.stack([prompt] * 4)], dim=1))[:, :10]
    torch.testing.assert_close(tower.tail(tokens, None, adapter.prompts()), tower.pool(expected))
    assert not torch.allclose(tower.tail(tokens), tower.pool(expected))


def test_lora_starts_at_the_frozen_model_and_learns():
    vit, cut, _ = drawn("timm")
    tower, adapter = cut(vit, 1), LoRA(WIDTH, 1).double()
    tokens = torch.randn(4, 10, WIDTH, dtype=torch.float64)
    features = tower.tail(tokens, adapter.bind())
    torch.testing.assert_close(features, tower.tail(tokens))
    features.square().sum().backward()
    assert adapter.up[0].grad.abs().max() > 0


@pytest.mark.parametrize("library", VITS)
@pytest.mark.parametrize("part", ["biases", "all"])
def test_what_is_unlocked_is_trained_saved_and_loaded_and_nothing_else(library, part):
    def model():
        vit, cut, _ = drawn(library)
        tower = cut(vit, 1)
        tower.unlock(part)
        torch.manual_seed(0)
        return HashModel(tower, torch.randn(5, 6).double(), (2, 4)).double()

    trained, tokens = model(), torch.randn(4, 10, WIDTH, dtype=torch.float64)
    before = copy.deepcopy(trained.tower.state_dict())
    unlocked = {name for name, parameter in trained.tower.named_parameters() if parameter.requires_grad}
    last = [name for name, _ in trained.tower.named_parameters() if f".{DEPTH - 1}." in name]
    assert unlocked == {name for name in last if part == "all" or name.endswith("bias")}
    assert unlocked

    optimizer = torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], lr=0.5)
    trained(tokens)[0].square().sum().backward()
    optimizer.step()
    after = dict(trained.tower.named_parameters())
    changed = {name for name, parameter in after.items() if not torch.equal(parameter, before[name])}
    assert changed <= unlocked
    assert len(changed) > len(unlocked) / 2  # keys' biases have no effect on attention

    fresh = model()
    fresh.load_trained_state({name: value.clone() for name, value in trained.trained_state().items()})
    assert torch.equal(fresh(tokens)[0], trained(tokens)[0])


@pytest.mark.parametrize("adapter", ["lora", "prompts", "biases", "full", "none"])
def test_a_run_with_it_is_encoded_again_as_it_was_evaluated(adapter, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NESTKALA_CACHE", str(tmp_path / "cache"))
    config = Config(adapter=adapter, lengths=(4, 12), epochs=3, queries_per_class=2, workers=0, lr=0.01, output="run")
    train(config)
    AcceleratorState._reset_state()
    dataset = load_dataset("digits", Path())
    split, hasher = load_split(tmp_path / "run" / "split.json", dataset), Hasher.from_pretrained("run")
    query, gallery = (hasher.encode([dataset.read(i) for i in part]) for part in (split.query, split.gallery))
    scores = evaluate(query, dataset.targets[split.query], gallery, dataset.targets[split.gallery], (4, 12))
    assert f'"map": {scores[12].map}' in (tmp_path / "run" / "metrics.json").read_text()
