"""Fitting the network: counters first, then the LSTM on top, over user-parallel lanes.

Dimensions: L lanes, T steps of a chunk, H hidden size, I items, C categories, B windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from model.interest_lstm import InterestLSTM, StepInput
from model.windows import Sparse, UserSteps, Windows

COUNTER_BATCH = 256
COUNTER_RATE = 0.05
COUNTER_RANK_WEIGHT = 100.0
"""Of the listwise part of the counters' loss: beside it the rest sets the level."""
COUNTERS = ("count_weight", "share_level", "share_weight", "total_weight")
"""Weights of what a user has done of each category."""
GRADIENT_NORM = 1.0
VALIDATION_LANES = 128
READOUT_ROWS = 512

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and of how much."""


@dataclass(frozen=True)
class LearningSettings:
    """How the network is fitted; numbers of steps are numbers of parameter updates.

    label_smoothing share of a target that is spread over all items (full softmax only)
    window_weight   weight of the window loss beside the next-item loss
    rank_weight     weight of the ranking part (listwise) of the window loss
    sampled_above   catalogues above this size use a sampled softmax with ``negatives`` items
    """

    max_steps: int = 1500
    counter_steps: int = 600
    lanes: int = 64
    chunk: int = 16
    learning_rate: float = 3e-3
    dropout: float = 0.2
    label_smoothing: float = 0.0
    window_weight: float = 0.05
    rank_weight: float = 1.0
    sampled_above: int = 30_000
    negatives: int = 4096
    validate_every: int = 100
    patience: int = 4


def step_input(users: UserSteps, index: np.ndarray) -> StepInput:
    """What the encoder reads of the steps at ``index``."""
    steps = users.steps
    columns = (steps.item, steps.category, steps.kind, steps.query, users.gap_s, users.clock_s)
    return StepInput(*(torch.from_numpy(column[index]) for column in columns))


def next_items(users: UserSteps) -> np.ndarray:
    """The item of the same user's next step, 0 where there is none: (N,)."""
    target = np.zeros(len(users), dtype=np.int64)
    target[:-1] = np.where(users.new_user[1:], 0, users.steps.item[1:])
    return target


def lane_chunks(
    users: UserSteps, lanes: int, chunk: int, random: np.random.Generator | None
) -> Iterator[np.ndarray]:
    """Chunks (T, L) of step indices, -1 = none: users stand one after the other in a lane.

    With ``random`` the users come in a new order, else the longest first. The user whose lane is
    shortest so far comes next, so that lanes end together.
    """
    length = np.diff(users.start)
    order = (
        np.argsort(-length, kind="stable") if random is None else random.permutation(len(length))
    )
    held: list[list[int]] = [[] for _ in range(min(lanes, max(len(length), 1)))]
    total = np.zeros(len(held), dtype=np.int64)
    for user in order.tolist():
        lane = int(total.argmin())
        held[lane].append(user)
        total[lane] += length[user]
    table = np.full((int(total.max()), len(held)), -1, dtype=np.int64)
    for lane, members in enumerate(held):
        parts = [np.arange(users.start[user], users.start[user + 1]) for user in members]
        if parts:
            table[: total[lane], lane] = np.concatenate(parts)
    for at in range(0, len(table), chunk):
        yield table[at : at + chunk]


def unroll(
    network: InterestLSTM,
    users: UserSteps,
    index: np.ndarray,
    h: Tensor,
    c: Tensor,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs a chunk (T, L); state restarts at user borders. Outputs (T, L, H), and h, c after."""
    flat = np.maximum(index, 0).ravel()
    features = network.encode(step_input(users, flat))
    features = nn.functional.dropout(features, dropout, training=dropout > 0)
    gates = network.input_gates(features).view(*index.shape, -1)  # (T, L, 4H)
    fresh = users.new_user[flat].reshape(index.shape)
    keep = torch.from_numpy(~fresh).to(h.dtype)[:, :, None]  # (T, L, 1)
    outputs = []
    for t in range(len(index)):
        h, c = network.step(gates[t], h * keep[t], c * keep[t])
        outputs.append(h)
    return torch.stack(outputs), h, c


def hidden_at(network: InterestLSTM, users: UserSteps, wanted: np.ndarray) -> Tensor:
    """h after each step of the sorted index array ``wanted`` (M,), over all users: (M, H)."""
    hidden = network.size.hidden
    found = torch.zeros(len(wanted), hidden)
    place = np.full(len(users) + 1, -1, dtype=np.int64)
    place[wanted] = np.arange(len(wanted))
    h = c = torch.zeros(min(VALIDATION_LANES, len(users.start) - 1), hidden)
    with torch.inference_mode():
        for index in lane_chunks(users, VALIDATION_LANES, 32, None):
            out, h, c = unroll(network, users, index, h, c)
            rows = place[index.ravel()]  # step -1 is the last, empty place
            found[rows[rows >= 0]] = out.reshape(-1, hidden)[torch.from_numpy(rows >= 0)]
    return found


def count_logits(
    network: InterestLSTM, windows: Windows, chosen: np.ndarray, trend: Tensor | None = None
) -> Tensor:
    """What counts and recent steps of some windows add to the trend, dense (B, C): the part of
    ``InterestLSTM.category_logits`` that is neither LSTM nor profile.

    trend  (C,) in place of the network's own
    """
    trend = network.trend if trend is None else trend
    row, category, count = windows.counts.of(chosen)
    seen = torch.from_numpy(count)  # (E, R)
    total = np.zeros((len(chosen), count.shape[1]), np.float32)
    np.add.at(total, row, count)
    own = network.own_share(seen / torch.from_numpy(np.maximum(total, 1e-9)[row]))  # (E,)
    activity = torch.log1p(torch.from_numpy(total)) @ network.total_weight  # (B,)
    of = torch.from_numpy(category)
    place = torch.from_numpy(row * len(trend) + category)
    logits = activity[:, None].expand(-1, len(trend))
    if network.near_share.any():
        recent = (windows.recent_category[chosen], windows.recent_item[chosen])
        near = network.near_share_of(network.near(*map(torch.from_numpy, recent)))  # (B, C)
        around = network.share_logits(near, trend)
        logits = logits + around
        both = own + near.view(-1)[place]
        part = network.share_logits(both, trend[of]) - around.view(-1)[place]
    else:
        part = network.share_logits(own, trend[of])
    part = part + torch.log1p(seen) @ network.count_weight
    return logits + torch.zeros(logits.numel()).index_add(0, place, part).view(logits.shape)


def profile_logits(network: InterestLSTM, windows: Windows, chosen: np.ndarray) -> Tensor:
    """``InterestLSTM.profile_logits`` of some windows, (B, C)."""
    row, category, share = slow_shares(windows.counts, chosen)
    weighted = network.profile(torch.from_numpy(category)) * torch.from_numpy(share)[:, None]
    blank = torch.zeros(len(chosen), weighted.shape[1])
    return network.profile_logits(blank.index_add(0, torch.from_numpy(row), weighted))


def slow_shares(counts: Sparse, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(window, category, share at the slowest rate) of what windows count, (E,) each."""
    row, category, count = counts.of(windows)
    slow = count[:, -1]
    total = np.zeros(len(windows), np.float32)
    np.add.at(total, row, slow)
    return row, category, slow / np.maximum(total, 1e-9)[row]


def window_loss(logits: Tensor, labels: Sparse, windows: np.ndarray, rank_weight: float) -> Tensor:
    """Mean over windows of the summed binary cross-entropy, -log P(I | F), plus a listwise loss.

    The listwise part is the cross-entropy of the labels, mean per window, under a softmax over
    the categories.
    """
    row, category, _ = labels.of(windows)
    place = (torch.from_numpy(row), torch.from_numpy(category - 1))
    logits = logits[:, 1:]  # index 0 is no category
    positive = logits[place]
    loss = nn.functional.softplus(logits).sum() - positive.sum()
    if rank_weight > 0:
        share = torch.from_numpy(1.0 / np.bincount(row, minlength=1)[row]).to(logits.dtype)
        behind = torch.logsumexp(logits, 1)[place[0]] - positive
        loss = loss + rank_weight * (behind * share).sum()
    return loss / max(len(windows), 1)


def fit_counters(
    network: InterestLSTM,
    windows: Windows,
    settings: LearningSettings,
    random: np.random.Generator,
    progress: Progress,
    smoothing: float,
    trend_rate: float,
) -> None:
    """Fits trend and counters, which then stay: the LSTM has to earn its place on top of them.

    Fitted together with what is counted of the same windows, they would leave too much to it.

    smoothing   windows that every category is taken to have been touched in, besides the real
                ones: of thousands of categories many are touched by a user or none, who says little
    trend_rate  first learning rate of the trend, which starts as the log-odds of being touched
    """
    with torch.no_grad():
        network.trend.zero_()
        network.interest.weight.zero_()
        network.interest.bias.zero_()
        network.activity.weight.zero_()
        network.activity.bias.zero_()
        network.count_weight.zero_()
        network.share_level.fill_(-1.0)
        network.share_weight.fill_(1.0)
        network.total_weight.zero_()
        network.profile_logit.zero_()
        network.near_share.zero_()
        network.near_item_share.zero_()
    if len(windows) == 0:
        return
    counters = [getattr(network, name) for name in COUNTERS]
    for weight in (network.trend, *counters):
        weight.requires_grad_(True)
    touched = np.bincount(windows.labels.category, minlength=network.size.categories)
    share = np.minimum((touched + smoothing) / (len(windows) + 2 * smoothing), 0.999)
    with torch.no_grad():
        # the base rate is that of users who mostly have counts: the trend must come down
        network.trend.copy_(torch.from_numpy(np.log(share / (1 - share)) - 0.5))
    groups = [
        {"params": counters, "lr": COUNTER_RATE},
        {"params": [network.trend], "lr": trend_rate},
    ]
    optimiser = torch.optim.Adam(groups)
    rates = [COUNTER_RATE, trend_rate]
    for step in range(settings.counter_steps):
        chosen = random.choice(len(windows), min(COUNTER_BATCH, len(windows)), replace=False)
        logits = network.trend + count_logits(network, windows, chosen)
        loss = window_loss(logits, windows.labels, chosen, COUNTER_RANK_WEIGHT)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - step / settings.counter_steps)
        optimiser.step()
        progress("counters", step + 1, settings.counter_steps)
    for weight in (network.trend, *counters):
        weight.requires_grad_(False)


@dataclass(frozen=True)
class Validation:
    """What early stopping looks at: steps with a next item, and windows, of a later time slice."""

    users: UserSteps
    steps: np.ndarray
    windows: Windows

    def loss(self, network: InterestLSTM, settings: LearningSettings) -> tuple[float, float]:
        """(next-item cross-entropy over the full catalogue, window loss), means."""
        wanted = np.union1d(self.steps, self.windows.step)
        hidden = hidden_at(network, self.users, wanted)
        target = next_items(self.users)
        item_loss = window = 0.0
        with torch.inference_mode():
            for at in range(0, len(self.steps), READOUT_ROWS):
                part = self.steps[at : at + READOUT_ROWS]
                h = hidden[np.searchsorted(wanted, part)]
                out = readout(network, h, self.users, part)
                logits = all_item_logits(network, out)
                goal = torch.from_numpy(target[part] - 1)
                item_loss += float(nn.functional.cross_entropy(logits, goal, reduction="sum"))
            for at in range(0, len(self.windows), READOUT_ROWS):
                part = np.arange(at, min(at + READOUT_ROWS, len(self.windows)))
                at_step = self.windows.step[part]
                h = hidden[np.searchsorted(wanted, at_step)]
                out = readout(network, h, self.users, at_step)
                logits = network.background_logits(out)
                logits = logits + count_logits(network, self.windows, part)
                loss = window_loss(logits, self.windows.labels, part, settings.rank_weight)
                window += float(loss) * len(part)
        return item_loss / max(len(self.steps), 1), window / max(len(self.windows), 1)


def readout(network: InterestLSTM, h: Tensor, users: UserSteps, index: np.ndarray) -> Tensor:
    """``InterestLSTM.readout`` of states after the steps at ``index``."""
    item = torch.from_numpy(users.steps.item[index])
    category = torch.from_numpy(users.steps.category[index])
    return network.readout(h, item, category)


def all_item_logits(network: InterestLSTM, out: Tensor) -> Tensor:
    """Logits of the items 1..I-1, (B, I - 1): index 0 is no item."""
    return nn.functional.linear(out, network.item.weight[1:], network.item_bias[1:])


class _Sampler:
    """Negatives of a sampled softmax: popular items more often, corrected by log Q."""

    def __init__(self, items: np.ndarray, size: int, random: np.random.Generator) -> None:
        count = np.bincount(items, minlength=size)[1:].astype(np.float64) + 0.1
        share = count**0.75
        self.share = share / share.sum()
        self.cumulative = np.cumsum(self.share)
        self.random = random

    def loss(self, network: InterestLSTM, out: Tensor, target: Tensor, negatives: int) -> Tensor:
        """Cross-entropy of the targets with the other items' sum estimated from shared negatives.

        A target is always there, so its own logit takes no correction.
        """
        drawn = np.searchsorted(self.cumulative, self.random.random(negatives)) + 1
        drawn = np.unique(np.minimum(drawn, len(self.share)))
        expected = -np.expm1(negatives * np.log1p(-self.share))  # P(an item is among them)
        log_q = torch.from_numpy(np.log(expected)).to(out.dtype)
        index = torch.from_numpy(drawn)
        logits = nn.functional.linear(out, network.item.weight[index], network.item_bias[index])
        logits = logits - log_q[index - 1]
        logits = logits.masked_fill(target[:, None] == index, float("-inf"))
        own = (out * network.item.weight[target]).sum(1) + network.item_bias[target]
        every = torch.cat((own[:, None], logits), 1)
        return (torch.logsumexp(every, 1) - own).mean()


def fit_network(
    network: InterestLSTM,
    users: UserSteps,
    windows: Windows,
    settings: LearningSettings,
    random: np.random.Generator,
    validation: Validation | None,
    progress: Progress,
) -> int:
    """Fits everything by truncated back-propagation; returns the number of updates kept.

    With ``validation`` the weights of the best look at it stay; without, all steps are made.
    """
    target = next_items(users)
    window_of = np.full(len(users) + 1, -1, dtype=np.int64)
    window_of[windows.step] = np.arange(len(windows))
    sampler = None
    if network.size.items > settings.sampled_above:
        sampler = _Sampler(users.steps.item, network.size.items, random)
    learned = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(learned, lr=settings.learning_rate)
    best, best_step, best_weights = float("inf"), 0, _weights(network)
    base: tuple[float, float] | None = None
    if validation is not None:
        base = validation.loss(network, settings)
        best = _combined(base, settings)
    chunks: Iterator[np.ndarray] = iter(())
    h = c = torch.zeros(0)
    worse = 0
    for step in range(settings.max_steps):
        index = next(chunks, None)
        if index is None:
            chunks = lane_chunks(users, settings.lanes, settings.chunk, random)
            index = next(chunks)
            h = c = torch.zeros(index.shape[1], network.size.hidden)
        out, h, c = unroll(network, users, index, h.detach(), c.detach(), settings.dropout)
        loss = _chunk_loss(
            network, users, index, out, target, windows, window_of, settings, sampler
        )
        rate = settings.learning_rate * (1 - step / settings.max_steps) ** 0.5
        _update(network, optimiser, loss, rate)
        progress("network", step + 1, settings.max_steps)
        if validation is not None and (step + 1) % settings.validate_every == 0:
            now = _combined(validation.loss(network, settings), settings)
            if now < best:
                best, best_step, best_weights, worse = now, step + 1, _weights(network), 0
            else:
                worse += 1
                if worse >= settings.patience:
                    break
    if validation is None:
        return settings.max_steps
    network.load_state_dict(best_weights)
    return best_step


def _chunk_loss(
    network: InterestLSTM,
    users: UserSteps,
    index: np.ndarray,
    out: Tensor,
    target: np.ndarray,
    windows: Windows,
    window_of: np.ndarray,
    settings: LearningSettings,
    sampler: _Sampler | None,
) -> Tensor:
    flat = index.ravel()
    hidden = out.reshape(len(flat), -1)
    loss = hidden.sum() * 0.0
    at = np.flatnonzero((flat >= 0) & (target[np.maximum(flat, 0)] > 0))
    if len(at):
        read = _dropped(readout(network, hidden[at], users, flat[at]), settings)
        goal = torch.from_numpy(target[flat[at]])
        if sampler is None:
            logits = all_item_logits(network, read)
            smooth = settings.label_smoothing
            loss = loss + nn.functional.cross_entropy(logits, goal - 1, label_smoothing=smooth)
        else:
            loss = loss + sampler.loss(network, read, goal, settings.negatives)
    at = np.flatnonzero(window_of[flat] >= 0)  # step -1 is the last, empty place
    if len(at):
        chosen = window_of[flat[at]]
        read = _dropped(readout(network, hidden[at], users, flat[at]), settings)
        logits = network.background_logits(read) + count_logits(network, windows, chosen)
        loss = loss + settings.window_weight * window_loss(
            logits, windows.labels, chosen, settings.rank_weight
        )
    return loss


def _dropped(out: Tensor, settings: LearningSettings) -> Tensor:
    return nn.functional.dropout(out, settings.dropout, training=settings.dropout > 0)


def _update(
    network: InterestLSTM, optimiser: torch.optim.Optimizer, loss: Tensor, rate: float
) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()


def _combined(loss: tuple[float, float], settings: LearningSettings) -> float:
    return loss[0] + settings.window_weight * loss[1]


def _weights(network: InterestLSTM) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}
