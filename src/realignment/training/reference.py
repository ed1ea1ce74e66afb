"""The reference, kept on disk: what the KL of the retained pairs needs, without a second forward or model."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from realignment.likelihood.backbone import output_head, scoring_mode
from realignment.likelihood.divergence import Reference, ReferenceStates, ReferenceTop
from realignment.likelihood.head import Head
from realignment.likelihood.log_probs import response_hidden_states
from realignment.likelihood.packing import Layout
from realignment.objective.hybrid import Example
from realignment.records import RealignmentError

Kind = Literal["states", "top256"]

TOP = 256
"""Tokens that the approximate cache keeps; their tail is one bucket, never dropped."""


class KeptReferenceError(RealignmentError):
    """The kept reference cannot be used."""


@dataclass(frozen=True)
class KeptReference:
    """π_ref of every retained pair at its response tokens, memory-mapped.

    ``states``: last hidden states in float32, 4 d bytes a token, exact. (Rounded to bfloat16 they would put
    3e-5 nats a token of noise under the KL, which is more than its gradient close to the reference.)
    ``top256``: the likeliest tokens and a bucket for the others, 2 KiB a token whatever the model.

    Attributes:
        kind: Which of the two.
        arrays: By name, each of shape (all tokens, …).
        places: pair_id → its tokens' places in the arrays.
    """

    kind: Kind
    arrays: dict[str, np.ndarray]
    places: dict[str, tuple[int, int]]

    def of(self, pair_ids: Sequence[str]) -> dict[str, Tensor]:
        """What is kept of these pairs, in order, as tensors of shape (N, …)."""
        spans = [range(*self.places[pair_id]) for pair_id in pair_ids]
        index = np.concatenate([np.asarray(span, dtype=np.int64) for span in spans])
        return {name: torch.from_numpy(array[index]) for name, array in self.arrays.items()}


def as_reference(kept: dict[str, Tensor], head: Head, dtype: torch.dtype) -> Reference:
    """The reference that the kept arrays describe.

    Args:
        kept: From `KeptReference.of`, on the model's device.
        head: The reference's.
        dtype: Of the model.
    """
    if "hidden" in kept:
        return ReferenceStates(kept["hidden"].to(dtype), head.detach())
    return ReferenceTop(kept["index"], kept["logprob"], kept["target"])


def keep_reference(
    model: Any,
    examples: Sequence[Example],
    folder: Path,
    *,
    kind: Kind,
    layout: Layout,
    token_budget: int | None,
    key: str,
) -> KeptReference:
    """Compute what is to be kept, or open what is there already.

    Args:
        model: The reference: at θ_ref, adapters fresh.
        examples: Of which the retained ones are kept.
        folder: Where; written whole or not at all.
        kind: What is kept.
        layout: How the model's pairs are laid out.
        token_budget: Tokens of a forward pass.
        key: Digest of what determines the model and the examples.

    Raises:
        KeptReferenceError: What is there is damaged or belongs to another run.
    """
    retained = [e for e in examples if not e.treatment.is_conflict]
    sizes = [sum(map(len, e.tokens.responses)) for e in retained]
    ends = np.cumsum(sizes, dtype=np.int64).tolist()
    places = {e.pair_id: (end - size, end) for e, size, end in zip(retained, sizes, ends, strict=True)}
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        spans = _compute(model, retained, kind=kind, layout=layout, token_budget=token_budget)
        names = _write(unfinished, spans, places, total=ends[-1] if ends else 0)
        digests = {name: _digest(unfinished / f"{name}.npy") for name in names}
        (unfinished / "kept.json").write_text(json.dumps({"key": key, "kind": kind, "sha256": digests}))
        unfinished.rename(folder)
    return KeptReference(kind, _open(folder, key, kind), places)


def _compute(
    model: Any, examples: Sequence[Example], *, kind: Kind, layout: Layout, token_budget: int | None
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """pair_id and what is kept of its tokens, batch by batch."""
    tokens, head = [e.tokens for e in examples], output_head(model).detach()
    with (
        torch.inference_mode(),
        scoring_mode(model),
        tqdm(total=len(tokens), desc="Reference", unit="pair") as bar,
    ):
        for members in layout.batches(tokens, budget=token_budget):
            rows = layout([tokens[i] for i in members]).to(model.device)
            hidden, owner = response_hidden_states(model, rows), rows.pair[rows.response]
            for rank, index in enumerate(members):
                mine = owner == rank
                yield examples[index].pair_id, _kept(hidden[mine], head, rows.target[mine], kind)
            bar.update(len(members))


def _kept(hidden: Tensor, head: Head, target: Tensor, kind: Kind) -> dict[str, np.ndarray]:
    if kind == "states":
        return {"hidden": hidden.float().cpu().numpy()}
    log_p = head.logits(hidden).log_softmax(-1)
    top = log_p.topk(min(TOP, log_p.shape[1]), dim=-1)
    known = log_p.gather(1, target[:, None])[:, 0]
    return {
        "index": top.indices.to(torch.int32).cpu().numpy(),
        "logprob": top.values.float().cpu().numpy(),
        "target": known.float().cpu().numpy(),
    }


def _write(
    folder: Path,
    spans: Iterator[tuple[str, dict[str, np.ndarray]]],
    places: dict[str, tuple[int, int]],
    *,
    total: int,
) -> list[str]:
    files: dict[str, np.memmap[Any, Any]] = {}
    for pair_id, arrays in spans:
        start, end = places[pair_id]
        for name, array in arrays.items():
            if name not in files:
                shape = (total, *array.shape[1:])
                files[name] = np.lib.format.open_memmap(
                    folder / f"{name}.npy", mode="w+", dtype=array.dtype, shape=shape
                )
            files[name][start:end] = array
    for file in files.values():
        file.flush()
    return list(files)


def _open(folder: Path, key: str, kind: Kind) -> dict[str, np.ndarray]:
    try:
        facts = json.loads((folder / "kept.json").read_text())
        damaged = [n for n, digest in facts["sha256"].items() if _digest(folder / f"{n}.npy") != digest]
    except (OSError, ValueError, KeyError) as error:
        raise KeptReferenceError(
            f"The kept reference in {folder} cannot be read ({error}). Remove it."
        ) from error
    if damaged or (facts["key"], facts["kind"]) != (key, kind):
        found = f"{', '.join(damaged)} does not match its digest" if damaged else "it is of another run"
        raise KeptReferenceError(
            f"The kept reference in {folder} cannot be used: {found}. Remove the folder."
        )
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in facts["sha256"]}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
