"""The network's cell equals torch's, its blocks do not depend on the batch's cut."""

from __future__ import annotations

import numpy as np
import torch

from model.blocks import BLOCK_SIZES, in_blocks, padded_size
from model.interest_lstm import NEAR_DECAY, InterestLSTM, NetworkSize, gap_bucket
from tests.checkpoints import tiny_checkpoint


def test_step_equals_torch_lstm_cell() -> None:
    torch.manual_seed(0)
    network = InterestLSTM(NetworkSize(items=10, categories=5))
    features, h, c = torch.randn(3, 33, 64).unbind(0)
    with torch.inference_mode():
        ours = network.step(network.input_gates(features), h, c)
        theirs = network.cell(features, (h, c))
    for mine, torchs in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-5, atol=1e-6)


def test_forward_over_a_sequence_equals_torch_lstm() -> None:
    torch.manual_seed(1)
    network = InterestLSTM(NetworkSize(items=10, categories=5))
    lstm = torch.nn.LSTM(64, 64)
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(lstm, f"{name}_l0").copy_(getattr(network.cell, name))
        features = torch.randn(50, 7, 64)
        wanted, (last_h, last_c) = lstm(features)
        h = c = torch.zeros(7, 64)
        for t in range(50):
            h, c = network.step(network.input_gates(features[t]), h, c)
            torch.testing.assert_close(h, wanted[t], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(h, last_h[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(c, last_c[0], rtol=1e-4, atol=1e-5)


def test_a_row_does_not_depend_on_its_neighbours_or_the_cut() -> None:
    rng = np.random.default_rng(0)
    network = tiny_checkpoint().network
    gates = rng.normal(size=(2500, 256)).astype(np.float32)
    h, c = rng.normal(size=(2, 2500, 64)).astype(np.float32)

    def hidden(*arrays: torch.Tensor) -> torch.Tensor:
        return network.step(*arrays)[0]

    whole = in_blocks(hidden, gates, h, c)
    for size in (1, 3, 16, 17, 100, 700, 1024):
        cut = [
            in_blocks(hidden, gates[i : i + size], h[i : i + size], c[i : i + size])
            for i in range(0, 200 if size == 1 else 2500, size)
        ]
        joined = np.concatenate(cut)
        np.testing.assert_allclose(joined, whole[: len(joined)], atol=1e-6)
    order = rng.permutation(2500)
    np.testing.assert_allclose(
        in_blocks(hidden, gates[order], h[order], c[order]), whole[order], atol=1e-6
    )


def test_padded_sizes() -> None:
    assert [padded_size(n) for n in (1, 16, 17, 1024, 5000)] == [16, 16, 32, 1024, 1024]
    assert tuple(sorted(BLOCK_SIZES)) == BLOCK_SIZES


def test_gap_buckets_are_powers_of_two() -> None:
    gaps = torch.tensor([-5, 0, 1, 2, 3, 4, 1023, 1024, 2**24, 2**40])
    assert gap_bucket(gaps).tolist() == [0, 0, 1, 2, 2, 3, 10, 11, 25, 25]


def test_shares_are_mixed_with_everybodys_rates() -> None:
    network = InterestLSTM(NetworkSize(items=10, categories=5))
    rates, trend = len(network.share_level), torch.tensor([-4.0, -0.5, -1.0])
    shares, near = torch.rand(3, rates), torch.tensor([[0.3, 0.05, 0.0], [0.0, 0.2, 0.0]])
    with torch.no_grad():
        network.share_weight.fill_(1.0)
        network.share_level.copy_(torch.linspace(-1.0, 1.0, rates))
        network.near_level.copy_(torch.tensor([0.4, -0.6]))
        share = network.own_share(shares) + network.near_share_of(near)
        mixed = trend + network.share_logits(share, trend)
        untouched = network.share_logits(torch.zeros(3), trend)
    wanted = trend.exp() + shares @ network.share_level.detach().exp()
    wanted += np.exp(0.4) * near[0] + np.exp(-0.6) * near[1]
    torch.testing.assert_close(mixed, torch.log(wanted))
    assert (untouched == 0).all()


def test_near_is_what_stands_beside_recent_steps() -> None:
    """By the newest step whole, by those before it ever less; places that are empty say nothing."""
    network = InterestLSTM(NetworkSize(items=4, categories=5))
    network.near_category[1, :2] = torch.tensor([2, 3])
    network.near_share[1, :2] = torch.tensor([0.5, 0.25])
    network.near_category[4, 0], network.near_share[4, 0] = 3, 0.1
    network.near_item_category[2, 0], network.near_item_share[2, 0] = 4, 0.3
    found = network.near(torch.tensor([[1, 0, 4], [0, 0, 0]]), torch.tensor([[0, 2, 2], [0, 0, 0]]))
    assert found.shape == (2, 2, 5)
    second, third = NEAR_DECAY, NEAR_DECAY**2
    expected = torch.zeros(2, 2, 5)
    expected[0, 0] = torch.tensor([0, 0, 0.5, 0.25 + 0.1 * third, 0])
    expected[1, 0, 4] = 0.3 * (second + third)
    torch.testing.assert_close(found, expected)


def test_what_is_counted_gets_no_gradient() -> None:
    """Gradients that no update takes away would grow, and count when gradients are clipped."""
    network = InterestLSTM(NetworkSize(items=10, categories=5))
    network.requires_grad_(False)
    network.thaw()
    fixed = {name for name, value in network.named_parameters() if not value.requires_grad}
    assert fixed == {"profile.weight", "profile_logit"}
