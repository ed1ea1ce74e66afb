"""Principles that a language model proposes and votes on: Inverse Constitutional AI (arXiv:2406.06560).

The model proposes principles from a few pairs at a time; similar ones are merged; for every pair the model
says which response each principle favours; principles that predict the choices are kept. The voter is never
told which response was chosen, and the order in which a pair is shown is drawn at random.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy

from realignment.chat_client.chat import Reply, Request
from realignment.infer_policy.replies import read_principles, read_votes
from realignment.infer_policy.requests import build_proposal_request, build_vote_request
from realignment.infer_policy.significance import FALSE_DISCOVERIES, adjust_p_values
from realignment.infer_policy.table import PRINCIPLE_COLUMNS, Explanation
from realignment.records import RealignmentError
from realignment.statistics import wilson_interval

Complete = Callable[[Sequence[Request]], list[Reply]]
"""Requests → replies, in order: a chat server, or anything else that answers chats."""


class ConstitutionError(RealignmentError):
    """None of the model's proposals can be read."""


@dataclass(frozen=True)
class Constitution:
    """The settings of Inverse Constitutional AI.

    Attributes:
        proposing_pairs: Pairs that principles are proposed from, at most.
        pairs_per_proposal: Pairs in a request for proposals.
        proposals: Principles in a reply, at most.
        clusters: Principles that are voted on, after merging.
        voting_pairs: Pairs that every principle is voted on for, at most.
        min_support: Share of pairs in which a principle must favour a response, in [0, 1].
        seed: Seeds the draws and orders.
    """

    proposing_pairs: int
    pairs_per_proposal: int
    proposals: int
    clusters: int
    voting_pairs: int
    min_support: float
    seed: int

    def infer_principles(self, pairs: pd.DataFrame, complete: Complete) -> Explanation:
        """Infer the principles behind the choices: propose, merge, vote, rank.

        Args:
            pairs: Columns prompt, chosen, rejected.
            complete: Answers the requests.

        Returns:
            The principles that predict the choices, those of the highest agreement first.

        Raises:
            ConstitutionError: None of the proposals can be read.
        """
        proposals = self.propose(pairs, complete)
        principles = merge_principles(proposals.principles, self.clusters)
        votes = self.vote(pairs, principles, complete)
        table = rank_principles(principles, votes.favours)
        kept = (table["support"] >= self.min_support) & (table["low"] > 0.5)
        kept &= table["q_value"] <= FALSE_DISCOVERIES
        order = table[kept].sort_values(["agreement", "support"], ascending=False, kind="stable")
        report = {
            "method": "chat",
            "n": len(votes.favours),
            "proposed": len(proposals.principles),
            "unread_proposals": proposals.unread,
            "selected": len(principles),
            "unread_votes": votes.unread,
            "kept": int(kept.sum()),
        }
        return Explanation(order.reset_index(drop=True), report)

    def propose(self, pairs: pd.DataFrame, complete: Complete) -> "Proposals":
        """Request principles that explain the choices, some pairs at a time.

        Args:
            pairs: Columns prompt, chosen, rejected.
            complete: Answers the requests.

        Returns:
            At least one principle.

        Raises:
            ConstitutionError: None of the replies can be read.
        """
        rng = np.random.default_rng(self.seed)
        sample = pairs.iloc[rng.permutation(len(pairs))[: self.proposing_pairs]]
        requests = []
        for start in range(0, len(sample), self.pairs_per_proposal):
            batch = sample.iloc[start : start + self.pairs_per_proposal]
            requests.append(build_proposal_request(batch, self.proposals, rng))
        replies = complete(requests)
        principles: list[str] = []
        unread = 0
        for reply in replies:
            proposed = read_principles(reply.text)[: self.proposals]
            principles += proposed
            unread += not proposed
        if not principles:
            raise ConstitutionError(
                f"None of {len(replies)} replies proposes principles; expected JSON with `principles`, found "
                f"for example {(replies[0].fault or replies[0].text)[:120]!r}. Take a stronger model, or "
                "`principles.method: features`."
            )
        return Proposals(principles, unread)

    def vote(self, pairs: pd.DataFrame, principles: Sequence[str], complete: Complete) -> "Votes":
        """Request, for every pair, which of its responses each principle favours.

        Args:
            pairs: Columns prompt, chosen, rejected.
            principles: The f principles to vote on.
            complete: Answers the requests.

        Returns:
            Votes on at most `voting_pairs` pairs.
        """
        rng = np.random.default_rng(self.seed + 1)
        sample = pairs.iloc[rng.permutation(len(pairs))[: self.voting_pairs]]
        chosen_first = rng.random(len(sample)) < 0.5  # shape (pairs,)
        rows: list[dict[str, Any]] = sample.to_dict("records")  # type: ignore[assignment]
        requests = [
            build_vote_request(row, principles, chosen_first=bool(is_chosen_first))
            for row, is_chosen_first in zip(rows, chosen_first, strict=True)
        ]
        replies = complete(requests)
        favours = np.full((len(rows), len(principles)), np.nan)
        for position, (reply, is_chosen_first) in enumerate(zip(replies, chosen_first, strict=True)):
            # A is the response shown first, B the other.
            favour_of_side = {"A": 1, "B": -1, "N": 0} if is_chosen_first else {"A": -1, "B": 1, "N": 0}
            for number, side in read_votes(reply.text, len(principles)).items():
                favours[position, number - 1] = favour_of_side[side]
        return Votes(favours, int(np.isnan(favours).sum()))


@dataclass(frozen=True, slots=True)
class Proposals:
    """The principles that a model proposed.

    Attributes:
        principles: In the order of the replies, with repeats.
        unread: Number of replies that could not be read.
    """

    principles: list[str]
    unread: int


@dataclass(frozen=True, slots=True)
class Votes:
    """The responses that principles favour.

    Attributes:
        favours: 1 where a principle favours the chosen response, −1 the rejected one, 0 neither, NaN where
            the vote could not be read; shape (pairs, f).
        unread: Number of votes that could not be read.
    """

    favours: npt.NDArray[np.float64]
    unread: int


def merge_principles(principles: Sequence[str], clusters: int) -> list[str]:
    """Merge similar principles.

    Args:
        principles: Principles, with repeats, which give weight.
        clusters: Most principles to return.

    Returns:
        The most central principle of each cluster, the largest cluster first.
    """
    distinct = list(dict.fromkeys(principles))
    if len(distinct) <= 1:
        return distinct
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(distinct).toarray()
    similarity = vectors @ vectors.T  # cosines, shape (d, d) for d distinct principles
    n_clusters = min(clusters, len(distinct))
    clustering = AgglomerativeClustering(n_clusters=n_clusters, metric="precomputed", linkage="average")
    labels = clustering.fit_predict(1 - np.clip(similarity, 0, 1))  # (d,)
    counts = np.array([principles.count(text) for text in distinct])
    representatives = []
    for label in range(n_clusters):
        members = np.flatnonzero(labels == label)
        # The most central member is the most similar to all proposals of the cluster, repeats counted.
        centrality = (similarity[np.ix_(members, members)] * counts[members]).sum(axis=1)
        text = distinct[int(members[centrality.argmax()])]
        representatives.append((-int(counts[members].sum()), text))
    return [text for _, text in sorted(representatives)]


def rank_principles(principles: Sequence[str], favours: npt.NDArray[np.float64]) -> pd.DataFrame:
    """Measure how well each principle predicts the choices.

    Args:
        principles: The f principles that were voted on.
        favours: `Votes.favours`, shape (pairs, f).

    Returns:
        PRINCIPLE_COLUMNS, a row per principle in their order: support, agreement with its 95 % interval, and
        a q-value from binomial tests against a coin.
    """
    rows = []
    p_values = []
    for column, text in enumerate(principles):
        votes = favours[:, column]
        votes = votes[~np.isnan(votes)]
        applies = int((votes != 0).sum())
        agrees = int((votes > 0).sum())
        low, high = wilson_interval(agrees, applies) if applies else (np.nan, np.nan)
        p_values.append(float(scipy.stats.binomtest(agrees, applies).pvalue) if applies else 1.0)
        rows.append(
            {
                "id": _build_id(text, column),
                "principle": text,
                "applies": applies,
                "pairs": len(votes),
                "support": applies / len(votes) if len(votes) else 0.0,
                "agreement": agrees / applies if applies else np.nan,
                "low": low,
                "high": high,
            }
        )
    table = pd.DataFrame(rows, columns=list(PRINCIPLE_COLUMNS))
    return table.assign(q_value=adjust_p_values(np.array(p_values)))


def _build_id(text: str, column: int) -> str:
    words = [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in ("the", "a", "response")]
    return "-".join([f"p{column + 1}", *words[:6]])
