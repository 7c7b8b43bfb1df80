"""Multi-head Asymmetric Hashing: its two heads, sampled queries and learned database codes, up to whole runs."""

import json
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from nestkala import Hasher
from nestkala.codes import columns, pack, unpack
from nestkala.data import load_dataset
from nestkala.data.splits import load_split
from nestkala.heads import CascadeHashHead, FlatHashHead, HashHead, NestedHashHead
from nestkala.losses import ADSH, DPSH, NestedLoss, WithHSWD, random_codes
from nestkala.losses.weighting import halving_weights
from nestkala.settings.config import Config
from nestkala.training.run import train
from nestkala.utils.errors import NestKALAError
from tests.losses.test_distillation import distill

FEATURES, LENGTHS = 6, (2, 3, 5)
WIDTH, CLASSES, PER_CLASS = 12, 4, 30


def random_head(kind: type[HashHead], batch_norm: bool = False) -> HashHead:
    torch.manual_seed(0)
    head = kind(FEATURES, LENGTHS, batch_norm).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return head


def inputs(batch: int = 7) -> torch.Tensor:
    return torch.randn(batch, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def layers(head: HashHead) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """{length: weight and bias of the layer that gives it}."""
    if isinstance(head, CascadeHashHead):
        return {linear.out_features: (linear.weight, linear.bias) for linear in head.linears}
    rows = {bits: head.columns(bits) for bits in LENGTHS}
    return {bits: (head.linear.weight[where], head.linear.bias[where]) for bits, where in rows.items()}


def by_hand(head: HashHead, x: torch.Tensor) -> dict[int, list[list[float]]]:
    """Image by image and bit by bit; in the cascade the layer's input is the next longer length's output."""
    codes: dict[int, list[list[float]]] = {}
    for bits in sorted(LENGTHS, reverse=True):
        weight, bias = (p.tolist() for p in layers(head)[bits])
        longer = codes[min(codes)] if codes and isinstance(head, CascadeHashHead) else x.tolist()
        codes[bits] = [
            [sum(w * v for w, v in zip(row, image, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
            for image in longer
        ]
    return codes


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("kind", [FlatHashHead, CascadeHashHead])
def test_every_length_has_the_output_that_its_layers_give_by_hand(kind: type[HashHead], batch_norm: bool) -> None:
    head, x = random_head(kind, batch_norm), inputs()
    h = head(x)
    assert h.shape == (7, sum(LENGTHS))
    for bits, logits in by_hand(head, x).items():
        expected = torch.tensor(logits, dtype=torch.float64)
        where = head.columns(bits)
        if batch_norm:
            deviation = (expected.var(dim=0, unbiased=False) + head.norm.eps).sqrt()
            expected = (expected - expected.mean(dim=0)) / deviation * head.norm.weight[where] + head.norm.bias[where]
        torch.testing.assert_close(h[:, where], expected.tanh(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [FlatHashHead, CascadeHashHead])
def test_every_column_belongs_to_one_length(kind: type[HashHead]) -> None:
    head = random_head(kind)
    taken = [i for bits in LENGTHS for i in range(head.width)[head.columns(bits)]]
    assert sorted(taken) == list(range(sum(LENGTHS)))
    assert [len(range(head.width)[head.columns(bits)]) for bits in LENGTHS] == list(LENGTHS)
    for bits in (0, 1, 4, 6, 2.0, True):
        with pytest.raises(ValueError, match="bits must be one of 2, 3, 5, because these codes do not nest, not"):
            head.columns(bits)


def test_a_nested_head_has_a_code_at_every_length() -> None:
    head = random_head(NestedHashHead)
    assert [head.columns(bits) for bits in range(1, 6)] == [slice(0, bits) for bits in range(1, 6)]
    for bits in (0, 6, -1, 2.0, True):
        with pytest.raises(ValueError, match="bits must be a whole number from 1 to 5, not"):
            head.columns(bits)


def test_flat_lengths_share_no_parameter_and_a_cascade_reaches_up_to_the_longest() -> None:
    for kind, untouched in ((FlatHashHead, {3, 5}), (CascadeHashHead, set())):
        head = random_head(kind)
        (head(inputs())[:, head.columns(2)] ** 2).sum().backward()
        if isinstance(head, CascadeHashHead):
            reached = {linear.out_features: linear.weight.grad for linear in head.linears}
        else:
            reached = {bits: head.linear.weight.grad[head.columns(bits)] for bits in LENGTHS}
        assert {bits for bits, gradient in reached.items() if not gradient.any()} == untouched


def nested(head: HashHead, **options: object) -> NestedLoss:
    return NestedLoss(LENGTHS, lambda _: DPSH(), columns=head.columns, **options)


def test_each_length_has_its_own_columns_and_teaches_the_next_shorter() -> None:
    head, targets = random_head(FlatHashHead), torch.eye(3).double()[[0, 1, 2, 0, 1, 2, 0]]
    h = head(inputs()).detach()
    parts = dict(zip(LENGTHS, h.split(LENGTHS, dim=1), strict=True))
    expected = {bits: DPSH()(part, targets, torch.arange(7)) for bits, part in parts.items()}
    result = nested(head, weighting="uniform", distillation=0.5).terms(h, targets, torch.arange(7))
    for shorter, longer in ((2, 3), (3, 5)):
        expected[shorter] = expected[shorter] + 0.5 * distill(parts[shorter], parts[longer])
    torch.testing.assert_close(result.sums, torch.stack([expected[bits] for bits in LENGTHS]))


def test_anchors_are_cut_as_the_codes_are() -> None:
    seen = {}

    class Looks(DPSH):
        def end_epoch(self, anchors: torch.Tensor | None = None) -> None:
            seen[len(seen)] = anchors

    head, anchors = random_head(FlatHashHead), torch.randn(3, sum(LENGTHS))
    NestedLoss(LENGTHS, lambda _: Looks(), "uniform", columns=head.columns).end_epoch(anchors)
    for part, expected in zip(seen.values(), anchors.split(LENGTHS, dim=1), strict=True):
        assert torch.equal(part, expected)


@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_each_length_weighs_half_of_the_next_shorter(m: int) -> None:
    weights = halving_weights(m)
    assert sum(weights) == pytest.approx(m)
    assert all(shorter == pytest.approx(2 * longer) for shorter, longer in pairwise(weights))


def test_halving_is_4_to_2_to_1_with_and_without_gradient() -> None:
    head, targets = random_head(CascadeHashHead), torch.eye(7).double()
    loss = nested(head, weighting="halving", distillation=0)
    for h in (head(inputs()), head(inputs()).detach()):
        result = loss.terms(h, targets, torch.arange(7))
        torch.testing.assert_close(result.weights / result.weights[-1], torch.tensor([4.0, 2, 1]).double())
        torch.testing.assert_close(result.total, 3 / 7 * (result.sums * torch.tensor([4, 2, 1])).sum())


def test_what_does_not_nest_cannot_be_balanced_on_shared_bits() -> None:
    head = random_head(FlatHashHead)
    assert head.weight is None
    with pytest.raises(ValueError, match="share none: use uniform or halving"):
        nested(head)


def database(num: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.eye(4)[torch.arange(num) % 4], random_codes(num, 3, torch.Generator().manual_seed(0))


def test_a_round_passes_over_its_own_draw_of_queries() -> None:
    loss = ADSH(*database(), queries=8, round_epochs=3)
    draws = [loss.sample(epoch).tolist() for epoch in range(30)]
    assert all(len(set(draw)) == 8 and set(draw) <= set(range(20)) for draw in draws)
    rounds = [{tuple(draw) for draw in draws[i : i + 3]} for i in range(0, 30, 3)]
    assert all(len(of_round) == 1 for of_round in rounds)
    assert len(set.union(*rounds)) == 10
    assert set(chain(*draws)) == set(range(20))
    assert ADSH(*database(), queries=8, seed=1).sample(0).tolist() != draws[0]
    assert ADSH(*database(), queries=8).sample(4).tolist() == draws[4]  # whatever was asked before


def test_where_there_are_no_more_images_than_queries_all_are_passed_over() -> None:
    assert ADSH(*database(), queries=20).sample(0) is None
    assert ADSH(*database()).sample(7) is None


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("queries", value) for value in (0, 2.5, float("inf"), float("nan"))),
        *(("round_epochs", 0), ("sweeps", -1), ("seed", 0.5), ("quantization", -1.0)),
    ],
)
def test_a_number_out_of_its_range_is_named(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{argument} must be .*, not {value}"):
        ADSH(*database(), **{argument: value})


def test_whole_numbers_may_come_as_floats() -> None:
    loss = ADSH(*database(), queries=8.0, round_epochs=2.0, sweeps=0.0, seed=1.0)
    assert torch.equal(loss.sample(3), ADSH(*database(), queries=8, round_epochs=2, seed=1).sample(3))


def test_codes_are_for_search_only_once_they_are_learned(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loss = ADSH(*database())
    for _ in range(2):
        loss.end_epoch()
        assert loss.database_codes is None
    loss.end_epoch()
    assert torch.equal(loss.database_codes, loss.codes)
    train(settings(data, epochs=2))
    assert "gallery codes were learned" not in capsys.readouterr().out


def test_hswd_beside_it_samples_and_keeps_codes_as_well() -> None:
    loss = WithHSWD(ADSH(*database(), queries=8))
    assert torch.equal(loss.sample(3), loss.base.sample(3))
    for _ in range(3):
        loss.end_epoch()
    assert torch.equal(loss.database_codes, loss.base.codes)
    assert WithHSWD(DPSH()).database_codes is None
    assert WithHSWD(DPSH()).sample(0) is None


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Own features around four directions."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(CLASSES), PER_CLASS))
    folder = tmp_path / "own"
    folder.mkdir()
    np.save(folder / "features.npy", rng.normal(size=(CLASSES, WIDTH))[labels] + rng.normal(size=(len(labels), WIDTH)))
    np.save(folder / "labels.npy", labels)
    return folder


def settings(data: Path, /, **changes: object) -> Config:
    given: dict[str, object] = {
        "data": str(data),
        "backbone": f"features:{WIDTH}",
        "adapter": "none",
        "anchors": "orthonormal",
        "output": data.parent / "run",
        "head": "cascade",
        "lengths": (3, 5, 12),
        "loss": "adsh",
        "weighting": "halving",
        "gallery": "labeled",
        "shots": 20,
        "queries_per_class": 5,
        "epochs": 12,
        "lr": 0.01,
        "workers": 0,
    }
    return Config(**(given | changes))


def ranked_map(queries: np.ndarray, query_labels: np.ndarray, items: np.ndarray, item_labels: np.ndarray) -> float:
    """Mean average precision of +-1 codes, an image at a time, ties in the items' order."""
    found = []
    for code, label in zip(queries.astype(int), query_labels, strict=True):
        order = np.argsort((items.astype(int) != code).sum(axis=1), kind="stable")
        hits = item_labels[order] == label
        found.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
    return float(np.mean(found))


def scored(run: Path) -> dict[str, dict[str, float]]:
    return json.loads((run / "metrics.json").read_text())["lengths"]


@pytest.mark.parametrize("head", ["cascade", "flat", "nested"])
def test_a_labeled_database_is_searched_by_the_codes_that_were_learned(
    data: Path, head: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(settings(data, head=head, head_init="random", epochs=40))
    AcceleratorState._reset_state()
    split = load_split(run / "split.json", load_dataset(str(data), Path()))
    assert split.gallery.tolist() == split.train.tolist()
    assert "gallery codes were learned by adsh" in capsys.readouterr().out
    hasher, features = Hasher.from_pretrained(run), np.load(data / "features.npy")
    labels, state = np.load(data / "labels.npy"), load_file(run / "checkpoint.safetensors")
    for number, bits in enumerate(hasher.lengths):
        queries = unpack(hasher.encode(features[split.query], bits=bits), bits)
        learned = state[f"loss.losses.{number}.codes"].numpy()
        expected = ranked_map(queries, labels[split.query], learned, labels[split.gallery])
        assert scored(run)[str(bits)]["map"] == pytest.approx(expected)
        assert expected > 0.5


def test_where_the_gallery_was_not_trained_on_both_sides_come_from_the_network(data: Path) -> None:
    run = train(settings(data, gallery="all", shots=6))
    AcceleratorState._reset_state()
    split = load_split(run / "split.json", load_dataset(str(data), Path()))
    hasher, features, labels = (
        Hasher.from_pretrained(run),
        np.load(data / "features.npy"),
        np.load(data / "labels.npy"),
    )
    for bits in hasher.lengths:
        queries, items = (
            unpack(hasher.encode(features[part], bits=bits), bits) for part in (split.query, split.gallery)
        )
        expected = ranked_map(queries, labels[split.query], items, labels[split.gallery])
        assert scored(run)[str(bits)]["map"] == pytest.approx(expected)


def test_training_passes_over_the_queries_of_the_round_alone(data: Path) -> None:
    options = {"queries": 24, "round_epochs": 4}
    run = train(settings(data, loss_args=options, epochs=3, seed=3))
    state = load_file(run / "checkpoint.safetensors")
    drawn = ADSH(torch.eye(4).repeat(20, 1), torch.ones(80, 3), seed=3, **options).sample(0)
    for number in range(3):
        seen = state[f"loss.losses.{number}.memory"].abs().sum(dim=1).nonzero().flatten()
        assert seen.tolist() == sorted(drawn.tolist())


def test_a_run_stopped_in_the_middle_of_a_round_goes_on_with_its_queries(data: Path) -> None:
    options = {"queries": 24, "round_epochs": 4}
    whole = train(settings(data, loss_args=options, epochs=10))
    part = train(settings(data, loss_args=options, epochs=6, output=data.parent / "part"))
    train(settings(data, loss_args=options, epochs=10, resume=part))
    one, two = (load_file(run / "checkpoint.safetensors") for run in (whole, part))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_learning_rate_drops_after_the_epochs_asked_for_whether_resumed_or_not(data: Path) -> None:
    rates: list[float] = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    changes = {"lr": 0.5, "lr_drops": (2, 4, 5), "momentum": 0.0}
    try:
        whole = train(settings(data, **changes, epochs=6))
        every, rates[:] = list(rates), []
        part = train(settings(data, **changes, epochs=3, output=data.parent / "part"))
        train(settings(data, **changes, epochs=6, resume=part))
    finally:
        hook.remove()
    steps = 80 // 8
    assert every == pytest.approx([rate for rate in (0.5, 0.5, 0.05, 0.05, 0.005, 0.0005) for _ in range(steps)])
    assert rates == every
    one, two = (load_file(run / "checkpoint.safetensors") for run in (whole, part))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_fewer_queries_than_a_batch_holds_are_one_batch(data: Path) -> None:
    changes = {"loss_args": {"queries": 4}, "precision": "fp64"}
    few, exact = (
        train(settings(data, **changes, batch_size=size, output=data.parent / f"by {size}")) for size in (8, 4)
    )
    one, two = (load_file(run / "checkpoint.safetensors") for run in (few, exact))
    for name in two:
        torch.testing.assert_close(one[name], two[name], rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("head", ["cascade", "flat"])
def test_a_hasher_serves_the_trained_lengths_alone(data: Path, head: str) -> None:
    run = train(settings(data, head=head, epochs=1))
    hasher, features = Hasher.from_pretrained(run), np.load(data / "features.npy")[:9]
    relaxed = {bits: hasher.relaxed(features, bits=bits) for bits in hasher.lengths}
    assert {bits: tuple(h.shape) for bits, h in relaxed.items()} == {bits: (9, bits) for bits in (3, 5, 12)}
    for bits, h in relaxed.items():
        np.testing.assert_array_equal(hasher.encode(features, bits=bits), np.packbits(h >= 0, axis=1))
    np.testing.assert_array_equal(hasher.encode(features), hasher.encode(features, bits=12))
    for ask in (hasher.encode, hasher.relaxed):
        with pytest.raises(NestKALAError, match="bits must be one of 3, 5, 12, because these codes do not nest, not 4"):
            ask(features, bits=4)


@pytest.mark.parametrize("start", [0, 1, 3, 7, 8, 9, 16])
@pytest.mark.parametrize("bits", [1, 2, 7, 8, 9])
def test_columns_of_packed_codes_are_those_bits_packed(start: int, bits: int) -> None:
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (5, 25))
    where = slice(start, start + bits)
    np.testing.assert_array_equal(columns(pack(signs), where), pack(signs[:, where]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head": "cascde"}, "unknown head 'cascde'; did you mean 'cascade'"),
        ({"head_init": "text"}, "head_init text needs head nested, not cascade: set head_init to random"),
        ({"shots": 0, "backbone": "tiny", "adapter": "clora"}, "shots is 0, which needs a start from text"),
        (
            {"shots": 0, "head": "nested", "backbone": "tiny", "anchors": "text", "data": "digits"},
            "gallery labeled is empty at 0 shots",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(data: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(NestKALAError, match=said):
        settings(data, **changes)


def test_adaptive_weighting_is_refused_where_codes_do_not_nest(data: Path) -> None:
    with pytest.raises(NestKALAError, match="but head flat has no such weight: use uniform or halving"):
        train(settings(data, head="flat", weighting="adaptive"))
    assert not (data.parent / "run").exists()
