"""The history of training against what the losses themselves say, step by step; objectives by plain calculation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nestkala.losses import DPSH, DSDH, KIDDO, HashLoss, NestedLoss, NestedTerms, WithHSWD, random_codes
from nestkala.settings.config import Config
from nestkala.training.history import Epoch, EpochSteps, history_as_json, history_from_json, load_history
from nestkala.training.run import train
from nestkala.training.trainer import Trainer
from nestkala.utils.errors import NestKALAError

CLASSES, IMAGES, BITS = 3, 12, 6
TARGETS = torch.eye(CLASSES).repeat(4, 1)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def kiddo(bits: int = BITS) -> KIDDO:
    return KIDDO(TARGETS, random_codes(IMAGES, BITS, generator())[:, :bits], alpha=0.3, quantization=0.7)


def seen(loss: HashLoss, anchors: torch.Tensor) -> torch.Tensor:
    """The outputs of an epoch in two steps, of which the loss takes note."""
    h = torch.randn(IMAGES, BITS, generator=generator()).tanh()
    for indices in torch.arange(IMAGES).split(6):
        loss.terms(h[indices], TARGETS[indices], indices, anchors)
    return h


def test_the_objective_of_kiddo_is_the_sum_form() -> None:
    loss, anchors = kiddo(), torch.randn(CLASSES, BITS, generator=generator())
    h = seen(loss, anchors)
    loss.end_epoch(anchors)
    expected = 0.0
    for i in range(IMAGES):
        for c in range(CLASSES):
            told = sum(loss.codes[i, k].item() * anchors[c, k].item() for k in range(BITS))
            expected += 0.3 * (TARGETS[i, c].item() - told) ** 2
        expected += 0.7 * sum((h[i, k].item() - loss.codes[i, k].item()) ** 2 for k in range(BITS))
    assert loss.discrete_objective(anchors).item() == pytest.approx(expected, rel=1e-5)


def test_the_objective_of_dsdh_is_that_of_the_best_regression() -> None:
    loss = DSDH(TARGETS, random_codes(IMAGES, BITS, generator()), mu=1.5, nu=0.2, quantization=0.6)
    h = seen(loss, torch.zeros(0)).double().numpy()
    loss.end_epoch()
    B, Y = loss.codes.double().numpy(), TARGETS.double().numpy()
    stacked = np.vstack([np.sqrt(1.5) * B, np.sqrt(0.2) * np.eye(BITS)])  # ridge regression as plain least squares
    _, residuals, _, _ = np.linalg.lstsq(stacked, np.vstack([np.sqrt(1.5) * Y, np.zeros((BITS, CLASSES))]))
    assert loss.discrete_objective().item() == pytest.approx(residuals.sum() + 0.6 * ((B - h) ** 2).sum(), rel=1e-4)


@pytest.mark.parametrize("make", [kiddo, lambda: DSDH(TARGETS, random_codes(IMAGES, BITS, generator()))])
def test_renewing_the_codes_never_raises_the_objective(make) -> None:
    loss, anchors = make(), torch.randn(CLASSES, BITS, generator=generator())
    seen(loss, anchors)
    before = loss.discrete_objective(anchors).item()
    loss.end_epoch(anchors)
    assert loss.discrete_objective(anchors).item() < before  # from random codes it falls


def test_the_nested_loss_gives_each_length_its_objective_where_all_have_one() -> None:
    anchors = torch.randn(CLASSES, BITS, generator=generator())
    nested = NestedLoss((2, BITS), kiddo)
    found = nested.discrete_objectives(anchors)
    assert found is not None
    for bits, value in zip((2, BITS), found.tolist(), strict=True):
        assert value == pytest.approx(kiddo(bits).discrete_objective(anchors[:, :bits]).item())
    assert NestedLoss((2, BITS), lambda _: DPSH()).discrete_objectives(anchors) is None
    assert WithHSWD(kiddo()).discrete_objective(anchors) == kiddo().discrete_objective(anchors)


def test_means_are_over_the_steps_and_terms_that_come_and_go_count_0() -> None:
    steps = EpochSteps((4, 8))
    for number in range(3):
        terms = {4: {"push": torch.tensor(1.0 + number)}, 8: {"push": torch.tensor(0.5, requires_grad=True)}}
        if number == 2:
            terms[4]["pull"] = torch.tensor(6.0)
        steps.add(NestedTerms(torch.tensor(0.0), terms, torch.zeros(2), torch.tensor([1.5, 0.5 + number])))
    epoch = Epoch.of(steps.values(), torch.tensor([3.0, 4.0]))
    assert epoch.terms == {4: {"push": 2.0, "pull": 2.0}, 8: {"push": 0.5}}
    assert epoch.weights == {4: 1.5, 8: 1.5}
    assert epoch.objective == {4: 3.0, 8: 4.0}


def test_json_gives_back_every_digit() -> None:
    rng = np.random.default_rng(0)
    values = [*rng.normal(size=200).tolist(), *(10.0 ** rng.uniform(-300, 300, 200)).tolist(), 0.1 + 0.2, 1e-320]
    history = [Epoch({4: {"a": value}}, {4: value}, {4: value} if value > 0 else None) for value in values]
    assert history_from_json(history_as_json(history), "here") == history


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[1]", b"\xff\xfe[", b'[{"terms": {"x": {}}, "weights": {}, "objective": null}]']
)
def test_what_is_no_history_is_refused_by_name(text: bytes, tmp_path: Path) -> None:
    assert load_history(tmp_path) is None
    (tmp_path / "history.json").write_bytes(text)
    with pytest.raises(NestKALAError, match=r"history\.json does not contain a training history") as caught:
        load_history(tmp_path)
    assert "\n" not in str(caught.value)
    assert "b'" not in str(caught.value)


@pytest.fixture
def features(tmp_path: Path) -> dict[str, object]:
    """Settings of a run on own features, 5 steps an epoch."""
    rng, labels = np.random.default_rng(0), np.arange(90) % 3
    np.save(tmp_path / "features.npy", rng.normal(size=(3, 8))[labels] + 0.3 * rng.normal(size=(90, 8)))
    np.save(tmp_path / "labels.npy", labels)
    own = {"data": str(tmp_path), "backbone": "features:8", "adapter": "none", "anchors": "orthonormal"}
    small = {"lengths": (4, 8), "shots": 10, "batch_size": 6, "queries_per_class": 3, "workers": 0}
    return {**own, **small, "epochs": 4, "checkpoint_every": 2}


def test_a_run_leaves_the_means_of_what_its_steps_were(
    features: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[NestedTerms] = []
    terms = NestedLoss.terms
    monkeypatch.setattr(NestedLoss, "terms", lambda *given: (steps.append(terms(*given)), steps[-1])[1])
    history = load_history(train(Config(**features, output=tmp_path / "run")))
    assert history is not None
    assert len(history) == 4
    for number, epoch in enumerate(history):
        of_epoch = steps[5 * number : 5 * number + 5]
        assert epoch.terms.keys() == {4, 8}
        assert epoch.terms[4].keys() == {"similarity", "quantization", "alignment", "distillation"}
        for bits, means in epoch.terms.items():
            for name, mean in means.items():
                assert mean == pytest.approx(np.mean([step.terms[bits][name].item() for step in of_epoch]), rel=1e-5)
        for place, bits in enumerate((4, 8)):
            assert epoch.weights[bits] == pytest.approx(np.mean([s.weights[place].item() for s in of_epoch]), rel=1e-5)
        assert epoch.objective is not None
        assert epoch.objective.keys() == {4, 8}


def test_a_loss_without_discrete_codes_has_no_objective(features: dict[str, object], tmp_path: Path) -> None:
    history = load_history(train(Config(**features, loss="dpsh", output=tmp_path / "run")))
    assert history is not None
    assert [epoch.objective for epoch in history] == [None] * 4


def test_history_outlives_an_interruption(
    features: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(Config(**features, output=tmp_path / "whole"))
    train_epoch = Trainer._train_epoch

    def stop_in_the_fourth(self: Trainer, bar: object) -> None:
        if self.epoch == 3:  # one epoch after the checkpoint: it is trained, and recorded, again
            raise KeyboardInterrupt
        train_epoch(self, bar)  # type: ignore[arg-type]

    part = tmp_path / "part"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_epoch", stop_in_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            train(Config(**features, output=part))
    assert not (part / "history.json").exists()
    train(Config(**features, resume=part))
    assert (part / "history.json").read_bytes() == (whole / "history.json").read_bytes()
