"""The nested head against separate heads of every length and against Linear, BatchNorm and tanh by hand."""

import pytest
import torch

from nestkala.heads import NestedHashHead, check_lengths

FEATURES, LENGTHS = 7, (1, 3, 4, 9)


def random_head(batch_norm, lengths=LENGTHS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    head = NestedHashHead(FEATURES, lengths, batch_norm).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        if batch_norm:
            head.norm.running_mean.copy_(torch.randn(lengths[-1], generator=generator))
            head.norm.running_var.copy_(torch.rand(lengths[-1], generator=generator) + 0.5)
    return head


def shortened(head, bits):
    """A head of `bits` bits with the first rows of everything that `head` holds."""
    short = NestedHashHead(FEATURES, (bits,), batch_norm=hasattr(head.norm, "running_mean")).double()
    state = {name: value[:bits].clone() if value.ndim else value for name, value in head.state_dict().items()}
    short.load_state_dict(state)
    return short


def by_hand(head, x, training):
    """Column by column: Linear, BatchNorm by its own or the batch's moments, tanh."""
    columns = []
    for i in range(head.weight.shape[0]):
        y = x @ head.linear.weight[i] + head.linear.bias[i]
        if hasattr(head.norm, "running_mean"):
            mean = y.mean() if training else head.norm.running_mean[i]
            var = ((y - y.mean()) ** 2).mean() if training else head.norm.running_var[i]
            y = (y - mean) / (var + head.norm.eps) ** 0.5 * head.norm.weight[i] + head.norm.bias[i]
        columns.append(torch.tanh(y))
    return torch.stack(columns, dim=1)


def inputs(batch=6):
    return torch.randn(batch, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_prefix_is_the_output_of_a_separate_shorter_head(batch_norm, training):
    head, x = random_head(batch_norm).train(training), inputs()
    shorts = {bits: shortened(head, bits).train(training) for bits in LENGTHS}
    for _ in range(2):  # training moves the running moments: they must nest as well
        h = head(x)
        assert h.shape == (6, 9)
        assert h.abs().max() < 1
        for bits, short in shorts.items():
            torch.testing.assert_close(h[:, :bits], short(x), rtol=0, atol=1e-12)
    for bits, short in shorts.items():
        for name, value in short.state_dict().items():
            torch.testing.assert_close(head.state_dict()[name][..., :bits] if value.ndim == 1 else value, value)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_output_is_linear_then_batch_norm_then_tanh(batch_norm, training):
    head, x = random_head(batch_norm).train(training), inputs()
    expected = by_hand(head, x, training).detach()
    torch.testing.assert_close(head(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("bits", LENGTHS)
def test_a_loss_on_a_prefix_reaches_its_own_rows_alone(batch_norm, training, bits):
    head = random_head(batch_norm).train(training)
    (head(inputs())[:, :bits] ** 3).sum().backward()
    # BatchNorm takes a bias before it out again, so that its gradient vanishes everywhere in training.
    skipped = {"linear.bias"} if batch_norm and training else set()
    for name, parameter in head.named_parameters():
        assert parameter.grad[bits:].abs().sum() == 0
        assert name in skipped or (parameter.grad[:bits].reshape(bits, -1).abs().amax(dim=1) > 0).all()


@pytest.mark.parametrize("batch_norm", [False, True])
def test_training_a_prefix_leaves_the_longer_bits_as_they_were(batch_norm):
    head, x = random_head(batch_norm), inputs()
    before = head.eval()(x).detach()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    head(x)[:, :3].sum().backward()
    optimizer.step()
    after = head(x).detach()
    assert torch.equal(before[:, 3:], after[:, 3:])
    assert (before[:, :3] != after[:, :3]).any()


def test_weight_starts_normal_with_deviation_001_and_bias_zero():
    head = NestedHashHead(400, (8, 300))
    assert head.weight.shape == (300, 400)
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert head.weight.mean().abs().item() < 2e-4
    assert (head.weight.abs() > 0.02).float().mean().item() == pytest.approx(0.0455, abs=0.005)
    assert torch.equal(head.linear.bias, torch.zeros(300))
    assert head.weight.requires_grad


def test_weight_is_the_parameter_itself():
    head = random_head(batch_norm=False)
    assert any(head.weight is parameter for parameter in head.parameters())


def test_without_batch_norm_a_row_does_not_depend_on_the_others():
    head, x = random_head(batch_norm=False), inputs()
    torch.testing.assert_close(head(x)[2:3], head(x[2:3]), rtol=0, atol=1e-12)


def test_batch_norm_refuses_a_batch_of_one_in_training():
    head = random_head(batch_norm=True)
    with pytest.raises(ValueError, match="more than 1 value"):
        head.train()(inputs(1))
    assert head.eval()(inputs(1)).shape == (1, 9)


@pytest.mark.parametrize(
    "lengths", [(), (8, 8), (16, 8), (8, 32, 16), (0, 8), (-4,), (8.0, 16), (8, 16.5), (True, 8), ("8", "16")]
)
def test_lengths_that_are_not_ascending_positive_ints_are_refused(lengths):
    with pytest.raises(ValueError, match="ascending whole numbers") as refusal:
        NestedHashHead(FEATURES, lengths)
    assert str(list(lengths)) in str(refusal.value)


@pytest.mark.parametrize("lengths", [[1], [8, 16, 32], (3, 5), range(1, 4)])
def test_good_lengths_come_back_as_a_tuple(lengths):
    assert check_lengths(lengths) == tuple(lengths)
    assert NestedHashHead(FEATURES, lengths).lengths == tuple(lengths)
