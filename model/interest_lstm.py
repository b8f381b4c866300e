"""The network: one LSTM step per event, and readouts of the hidden state.

Dimensions: B rows or steps, H hidden size (equal to the embedding size, so that the item
embeddings can be tied), I items, C categories, Q query buckets, R decay rates.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.state import RATES

GAP_BUCKETS = 26
PROFILE = 32
"""Length of a user's profile, a part of the counts that speaks for other categories."""
NEAR = 64
"""Categories that are kept as near to each category, the other part that does."""
NEAR_ITEM = 16
"""Categories that are kept as near to each item."""
NEAR_STEPS = 10
"""Recent steps that speak so, by category and item; a row holds more, and can do without one."""
NEAR_DECAY = 0.9
"""What such a step counts, to the power of how many steps back it lies."""
HOUR_S = 3600
DAY_S = 86400


@dataclass(frozen=True)
class NetworkSize:
    """Sizes of the network; indices 0 of items, categories, kinds and query buckets are padding."""

    items: int
    categories: int
    query_buckets: int = 1024
    hidden: int = 64
    kinds: int = 6

    def to_dict(self) -> dict[str, int]:
        """The sizes as plain numbers, for ``config.json``."""
        return asdict(self)


class StepInput(NamedTuple):
    """What the encoder reads of B steps.

    item, category, kind  (B,) int64 vocabulary indices
    query                 (B, 8) int64 query buckets, 0 = none
    gap_s                 (B,) int64 seconds since the user's previous step, 0 for the first
    time_s                (B,) int64 seconds since the epoch (UTC hour and weekday come from it)
    """

    item: Tensor
    category: Tensor
    kind: Tensor
    query: Tensor
    gap_s: Tensor
    time_s: Tensor


class InterestLSTM(nn.Module):
    """Encoder, LSTM cell and readouts.

    The encoder is the feature network of the article, H = s(W1 X + b1), over a sum of embeddings;
    the cell is ``torch.nn.LSTMCell``; the readout is LayerNorm(h + embedding of the last step).
    """

    near_category: Tensor
    near_share: Tensor
    near_item_category: Tensor
    near_item_share: Tensor

    def __init__(self, size: NetworkSize) -> None:
        super().__init__()
        self.size = size
        hidden = size.hidden
        self.item = nn.Embedding(size.items, hidden, padding_idx=0)
        self.category = nn.Embedding(size.categories, hidden, padding_idx=0)
        self.kind = nn.Embedding(size.kinds, hidden, padding_idx=0)
        self.query = nn.Embedding(size.query_buckets, hidden, padding_idx=0)
        self.gap = nn.Embedding(GAP_BUCKETS, hidden)
        self.hour = nn.Embedding(24, hidden)
        self.weekday = nn.Embedding(7, hidden)
        self.feature = nn.Linear(hidden, hidden)
        self.cell = nn.LSTMCell(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.item_bias = nn.Parameter(torch.zeros(size.items))
        # category readout: trend + counts + LSTM
        self.trend = nn.Parameter(torch.zeros(size.categories))
        self.count_weight = nn.Parameter(torch.zeros(RATES))
        self.share_level = nn.Parameter(torch.zeros(RATES))
        self.share_weight = nn.Parameter(torch.zeros(()))
        self.total_weight = nn.Parameter(torch.zeros(RATES))
        # what touched categories and recent steps say of other categories; see cooccurrence.py
        self.profile = nn.Embedding(size.categories, PROFILE)
        self.profile_logit = nn.Parameter(torch.zeros(size.categories, PROFILE))
        self.near_level = nn.Parameter(torch.zeros(2))
        for name, kept in (
            ("near", (size.categories, NEAR)),
            ("near_item", (size.items, NEAR_ITEM)),
        ):
            self.register_buffer(f"{name}_category", torch.zeros(kept, dtype=torch.int64))
            self.register_buffer(f"{name}_share", torch.zeros(kept))
        self.interest = nn.Linear(hidden, hidden)
        self.activity = nn.Linear(hidden, 1)
        for table in (self.item, self.category, self.kind, self.query):
            nn.init.normal_(table.weight, std=0.05)
            with torch.no_grad():
                table.weight[0].zero_()
        for table in (self.gap, self.hour, self.weekday):
            nn.init.normal_(table.weight, std=0.02)
        nn.init.normal_(self.profile.weight, std=0.3)
        nn.init.zeros_(self.activity.weight)
        self.thaw()

    def thaw(self) -> None:
        """Every weight is learned, but those of the profile, which are counted."""
        self.requires_grad_(True)
        for counted in (self.profile.weight, self.profile_logit):
            counted.requires_grad_(False)

    def encode(self, x: StepInput) -> Tensor:
        """Features of B steps, (B, H)."""
        days = torch.div(x.time_s, DAY_S, rounding_mode="floor")
        total = (
            self.item(x.item)
            + self.category(x.category)
            + self.kind(x.kind)
            + self.gap(gap_bucket(x.gap_s))
            + self.hour(torch.div(x.time_s % DAY_S, HOUR_S, rounding_mode="floor"))
            + self.weekday((days + 3) % 7)  # day 0 was a Thursday
        )
        searches = x.query[:, 0].nonzero().squeeze(1)
        if len(searches):
            total = total.index_add(0, searches, self.encode_query(x.query[searches]))
        features: Tensor = torch.tanh(self.feature(total))  # (B, H)
        return features

    def encode_query(self, query: Tensor) -> Tensor:
        """Mean embedding of the query tokens that are there, (B, H)."""
        count = (query > 0).sum(1, keepdim=True).clamp(min=1)
        return self.query(query).sum(1) / count

    def input_gates(self, features: Tensor) -> Tensor:
        """The cell's input half, W_ih x + b_ih + b_hh, (B, 4H): needs no hidden state."""
        cell = self.cell
        return nn.functional.linear(features, cell.weight_ih, cell.bias_ih + cell.bias_hh)

    def step(self, gates: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One LSTM step from the input half of the gates: equals ``torch.nn.LSTMCell``."""
        gates = gates + nn.functional.linear(h, self.cell.weight_hh)
        i, f, g, o = gates.chunk(4, dim=1)  # each (B, H)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def forward(self, x: StepInput, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step of B users from their events: (h, c), each (B, H)."""
        return self.step(self.input_gates(self.encode(x)), h, c)

    def readout(self, h: Tensor, last_item: Tensor, last_category: Tensor) -> Tensor:
        """What the heads read, (B, H): a function of the row, as the last step stands in it."""
        return self.norm(h + self.item(last_item) + self.category(last_category))

    def item_logits(self, out: Tensor) -> Tensor:
        """Next-item scores over the whole catalogue against the tied embeddings, (B, I)."""
        return nn.functional.linear(out, self.item.weight, self.item_bias)

    def category_logits(
        self, out: Tensor, log_counts: Tensor, shares: Tensor, near: Tensor
    ) -> Tensor:
        """Logits that a category is touched within the horizon, (B, C), uncalibrated.

        log_counts  (B, R, C) log(1 + decayed count) per rate
        shares      (B, R, C) decayed count over the user's total at that rate
        near        (2, B, C) what is near the recent steps, see ``near``
        """
        counted = torch.einsum("brc,r->bc", log_counts, self.count_weight)
        total = torch.log1p(torch.expm1(log_counts).sum(2)) @ self.total_weight  # (B,)
        profiled = self.profile_logits(shares[:, -1] @ self.profile.weight)
        mixed = self.share_logits(
            self.own_share(shares.transpose(1, 2)) + self.near_share_of(near), self.trend
        )
        return self.background_logits(out) + profiled + counted + mixed + total[:, None]

    def own_share(self, shares: Tensor) -> Tensor:
        """The user's own shares of categories at all rates as one, (..., R) -> (...)."""
        return shares @ torch.exp(self.share_level)

    def near(self, recent_category: Tensor, recent_item: Tensor) -> Tensor:
        """What is near the recent steps, (2, B, C): first by their categories, then by their items.

        recent_category, recent_item  (B, J) of the user's last steps, newest first, 0 = none

        The share that each category has of what users touch near such a step, summed over the
        steps with a weight that falls by ``NEAR_DECAY`` a step.
        """
        weight = NEAR_DECAY ** torch.arange(recent_item.shape[1])
        found = torch.zeros(2, len(recent_item), self.size.categories)
        tables = (
            (recent_category, self.near_category, self.near_share),
            (recent_item, self.near_item_category, self.near_item_share),
        )
        for total, (recent, category, share) in zip(found, tables, strict=True):
            amount = share[recent] * weight[:, None]  # (B, J, K)
            total.scatter_add_(1, category[recent].flatten(1), amount.flatten(1))
        return found

    def near_share_of(self, near: Tensor) -> Tensor:
        """What is near by categories and by items as one share, (2, ...) -> (...)."""
        return torch.tensordot(torch.exp(self.near_level), near, 1)

    def share_logits(self, share: Tensor, trend: Tensor) -> Tensor:
        """What the user's shares of categories add to their trend, in its shape.

        Added to the trend as it is (weight 1), it makes log(rate + share): what everybody does and
        what the user does, or did near by, are mixed as shares, so that where the user has done
        enough, what everybody does says little.
        """
        return self.share_weight * torch.log1p(share * torch.exp(-trend))

    def profile_logits(self, profile: Tensor) -> Tensor:
        """What profiles (B, P) say of every category, (B, C).

        A profile is the mean of the touched categories' vectors, weighted by their shares at the
        slowest rate: a factorised table of what goes with what.
        """
        return nn.functional.linear(profile, self.profile_logit)

    def background_logits(self, out: Tensor) -> Tensor:
        """The part of the category logits that needs no counts: trend, LSTM, activity, (B, C)."""
        return nn.functional.linear(
            self.interest(out), self.category.weight, self.trend
        ) + self.activity(out)


def gap_bucket(gap_s: Tensor) -> Tensor:
    """log2 bucket of a gap in seconds: 0 for none, 1 for 1 s, ... (integers compare exactly)."""
    bits = torch.frexp(gap_s.clamp(min=0, max=2**24).to(torch.float64))[1]
    return bits.clamp(min=0, max=GAP_BUCKETS - 1).to(torch.int64)
