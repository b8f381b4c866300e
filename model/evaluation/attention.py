"""What an attention over a row's recent steps would be worth, on top of a frozen network.

The readout gets a mean of the embeddings of the row's recent items, weighted by attention. The
model has none: it would have to lower the next-item cross-entropy, or name the steps that carry a
listed item better than the counts do (explanation.py), which name them for nothing.

Dimensions: B rows or steps, J = 16 recent items, newest first, H hidden size, N steps by user.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from model import interests
from model.checkpoint import Checkpoint
from model.counting import by_user
from model.evaluation.fidelity import compared, one_of_each
from model.event_log import EventLog
from model.explanation import score_drops
from model.held_lists import HeldLists
from model.interest_lstm import InterestLSTM
from model.learning import all_item_logits, hidden_at, next_items, readout
from model.ranking import rank, recent_items
from model.state import RECENT
from model.training import Trained
from model.windows import UserSteps

UPDATES = 2000
LOOK_EVERY = 50
PATIENCE = 8
RATE = 3e-4
BATCH = 384
HELD = 6000
READ_TOGETHER = 512
REASONS = 500
LISTED = 10


class AttentionReadout(nn.Module):
    """``out`` plus what the recent items say; says nothing before it has learned."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.value = nn.Linear(hidden, hidden, bias=False)
        self.place = nn.Parameter(torch.zeros(RECENT))
        nn.init.zeros_(self.value.weight)

    def weights(self, out: Tensor, recent: Tensor, embedded: Tensor) -> Tensor:
        """Attention (B, J) of readouts (B, H) to items (B, J), 0 = none, embedded (B, J, H)."""
        score = torch.einsum("bh,bjh->bj", self.query(out), embedded) / out.shape[1] ** 0.5
        score = (score + self.place).masked_fill(recent == 0, -1e9)
        return torch.softmax(score, 1) * (recent > 0)

    def forward(self, out: Tensor, recent: Tensor, embedded: Tensor) -> Tensor:
        """The readout with attention, (B, H)."""
        weights = self.weights(out, recent, embedded)
        added: Tensor = self.value(torch.einsum("bj,bjh->bh", weights, embedded))
        return out + added


class Task:
    """Next items of a log's steps as a frozen network reads them.

    early, late  steps to learn from, and to judge by
    """

    def __init__(self, network: InterestLSTM, users: UserSteps, late_ms: int, seed: int) -> None:
        self.network, self.users = network, users
        self.random = np.random.default_rng(seed)
        self.target = next_items(users)
        self.hidden = hidden_at(network, users, np.arange(len(users)))
        back = np.arange(len(users))[:, None] - np.arange(RECENT)
        own = back >= users.start[users.segment][:, None]
        self.recent = np.where(own, users.steps.item[np.maximum(back, 0)], 0)
        is_late = np.append(users.steps.time_ms[1:] >= late_ms, False)
        self.early = np.flatnonzero((self.target > 0) & ~is_late)
        late = np.flatnonzero((self.target > 0) & is_late)
        self.late = np.sort(self.random.permutation(late)[:HELD])

    def loss(self, attention: AttentionReadout | None, steps: np.ndarray) -> Tensor:
        """Mean cross-entropy of the next items over the whole catalogue."""
        with torch.no_grad():
            out = readout(self.network, self.hidden[torch.from_numpy(steps)], self.users, steps)
            recent = torch.from_numpy(self.recent[steps])
            embedded = self.network.item(recent)
        if attention is not None:
            out = attention(out, recent, embedded)
        goal = torch.from_numpy(self.target[steps] - 1)
        return nn.functional.cross_entropy(all_item_logits(self.network, out), goal)

    def late_loss(self, attention: AttentionReadout | None) -> float:
        """The same of the steps to judge by."""
        total = 0.0
        with torch.inference_mode():
            for at in range(0, len(self.late), READ_TOGETHER):
                part = self.late[at : at + READ_TOGETHER]
                total += float(self.loss(attention, part)) * len(part)
        return total / max(len(self.late), 1)


def fit(task: Task, updates: int = UPDATES) -> tuple[AttentionReadout, float]:
    """The attention after the last update, and the least late cross-entropy on the way."""
    attention = AttentionReadout(task.network.size.hidden)
    best, worse = float("inf"), 0
    optimiser = torch.optim.Adam(attention.parameters(), lr=RATE)
    for update in range(1, updates + 1):
        steps = task.random.choice(task.early, min(BATCH, len(task.early)), replace=False)
        loss = task.loss(attention, steps)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if update % LOOK_EVERY == 0 or update == updates:
            now = task.late_loss(attention)
            best, worse = (now, 0) if now < best else (best, worse + 1)
            if worse == PATIENCE:
                break
    return attention, best


def attention_figures(log: EventLog, trained: Trained, seed: int) -> dict[str, float]:
    """Quality without and with attention, and whose named steps carry the listed items."""
    torch.manual_seed(seed)
    draft = trained.draft
    batch, _ = log.batch(draft.vocabulary)
    task = Task(draft.network, UserSteps(by_user(batch)), trained.late_s * 1000, seed)
    attention, with_it = fit(task)
    by_counts, by_attention = _named_rightly(draft, trained.lists, attention, task.random)
    return {
        "next-item cross-entropy, as it is": task.late_loss(None),
        "next-item cross-entropy, with attention (the best look at the slice)": with_it,
        "share of reasons whose step carries more than the others, as stated": by_counts,
        "the same of the step with the most attention": by_attention,
    }


def _named_rightly(
    draft: Checkpoint, lists: HeldLists, attention: AttentionReadout, random: np.random.Generator
) -> tuple[float, float]:
    """Of one listed item of each of 500 lists: how often the step named by counts, and by
    attention, lowers its score more than the mean of the others, when it is left out."""
    drawn = np.sort(random.permutation(len(lists))[:REASONS])
    rows, now_ms = lists.rows[drawn], lists.now_ms[drawn]
    item, by_counts = one_of_each(rank(rows, now_ms, draft, LISTED), rows, random)
    drop = score_drops(rows, now_ms, item[:, None], draft)[:, 0]  # (Q, J)
    recent = torch.from_numpy(recent_items(rows, RECENT)[0])
    with torch.inference_mode():
        out = torch.from_numpy(interests.hidden_readout(rows, draft))
        weights = attention.weights(out, recent, draft.network.item(recent)).numpy()
    return _lowers_more(drop, by_counts), _lowers_more(drop, weights.argmax(1))


def _lowers_more(drop: np.ndarray, named: np.ndarray) -> float:
    """The share of the cases where the named step has a larger drop than the mean of the others."""
    values, _ = compared(np.nan_to_num(drop), ~np.isnan(drop), named)
    return float(values[:, 2].mean()) if len(values) else float("nan")
