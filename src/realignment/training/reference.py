"""The reference cached on disk: the KL of the retained pairs without a second forward pass or model."""

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
"""Tokens of the vocabulary that the approximate cache has; their tail is one bucket, never dropped."""

MANIFEST = "kept.json"


class CachedReferenceError(RealignmentError):
    """The cached reference cannot be used."""


@dataclass(frozen=True)
class CachedReference:
    """π_ref of every retained pair at its response tokens, memory-mapped from disk.

    ``states``: last hidden states in float32, 4 d bytes a token, exact. (Rounded to bfloat16 they would put
    3e-5 nats a token of noise under the KL, which is more than its gradient close to the reference.)
    ``top256``: the likeliest tokens and a bucket for the others, 2 KiB a token whatever the model.

    Attributes:
        kind: Which of the two.
        arrays: By name, each of shape (all tokens, …).
        spans: pair_id → first and one past the last of its tokens in the arrays.
    """

    kind: Kind
    arrays: dict[str, np.ndarray]
    spans: dict[str, tuple[int, int]]

    def select(self, pair_ids: Sequence[str]) -> dict[str, Tensor]:
        """Return the arrays of these pairs' tokens, in order, as tensors of shape (N, …)."""
        index = np.concatenate([np.arange(*self.spans[pair_id], dtype=np.int64) for pair_id in pair_ids])
        return {name: torch.from_numpy(array[index]) for name, array in self.arrays.items()}


def build_reference(cached: dict[str, Tensor], head: Head, dtype: torch.dtype) -> Reference:
    """Build the reference that cached arrays describe.

    Args:
        cached: From `CachedReference.select`, on the model's device.
        head: The reference's output head.
        dtype: Dtype of the model.

    Returns:
        By its states where they are cached, else by its top.
    """
    if "hidden" in cached:
        return ReferenceStates(cached["hidden"].to(dtype), head.detach())
    return ReferenceTop(cached["index"], cached["logprob"], cached["target"])


def cache_reference(
    model: Any,
    examples: Sequence[Example],
    folder: Path,
    *,
    kind: Kind,
    layout: Layout,
    token_budget: int | None,
    key: str,
) -> CachedReference:
    """Compute the reference of retained pairs and write it to disk, or open what is there already.

    Args:
        model: The reference: at θ_ref, adapters fresh.
        examples: Examples of which the retained ones are cached.
        folder: Folder of the cache; written whole or not at all.
        kind: What is cached.
        layout: How the model's pairs are packed.
        token_budget: Tokens of a forward pass.
        key: Digest of what determines the model and the examples.

    Returns:
        The cache, open.

    Raises:
        CachedReferenceError: The folder is damaged or belongs to another run.
    """
    retained = [e for e in examples if not e.treatment.is_conflict]
    spans: dict[str, tuple[int, int]] = {}
    total = 0
    for example in retained:
        start = total
        total += sum(map(len, example.tokens.responses))
        spans[example.pair_id] = (start, total)
    if not folder.exists():
        # Renamed only when complete: what an interrupted run leaves counts for nothing.
        unfinished = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        arrays = _compute(model, retained, kind=kind, layout=layout, token_budget=token_budget)
        names = _write(unfinished, arrays, spans, total=total)
        digests = {name: _digest(unfinished / f"{name}.npy") for name in names}
        (unfinished / MANIFEST).write_text(json.dumps({"key": key, "kind": kind, "sha256": digests}))
        unfinished.rename(folder)
    return CachedReference(kind, _open(folder, key, kind), spans)


def _compute(
    model: Any, examples: Sequence[Example], *, kind: Kind, layout: Layout, token_budget: int | None
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield pair_id and the arrays of its tokens, batch by batch."""
    tokens = [e.tokens for e in examples]
    head = output_head(model).detach()
    with (
        torch.inference_mode(),
        scoring_mode(model),
        tqdm(total=len(tokens), desc="Reference", unit="pair") as bar,
    ):
        for members, rows in layout.pack_batches(tokens, budget=token_budget, device=model.device):
            hidden = response_hidden_states(model, rows)  # (N, d)
            owner = rows.pair[rows.response]  # (N,)
            for rank, index in enumerate(members):
                mask = owner == rank
                yield examples[index].pair_id, _token_arrays(hidden[mask], head, rows.target[mask], kind)
            bar.update(len(members))


def _token_arrays(hidden: Tensor, head: Head, target: Tensor, kind: Kind) -> dict[str, np.ndarray]:
    """What is cached of a pair's N tokens, by array."""
    if kind == "states":
        return {"hidden": hidden.float().cpu().numpy()}
    log_p = head.logits(hidden).log_softmax(-1)  # (N, V)
    top = log_p.topk(min(TOP, log_p.shape[1]), dim=-1)
    target_log_p = log_p.gather(1, target[:, None])[:, 0]
    return {
        "index": top.indices.to(torch.int32).cpu().numpy(),
        "logprob": top.values.float().cpu().numpy(),
        "target": target_log_p.float().cpu().numpy(),
    }


def _write(
    folder: Path,
    pairs: Iterator[tuple[str, dict[str, np.ndarray]]],
    spans: dict[str, tuple[int, int]],
    *,
    total: int,
) -> list[str]:
    """Write each pair's arrays into their span of one file per array; returns the arrays' names."""
    files: dict[str, np.memmap[Any, Any]] = {}
    for pair_id, arrays in pairs:
        start, end = spans[pair_id]
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
    """Open the arrays of a cache whose files are as they were written."""
    try:
        facts = json.loads((folder / MANIFEST).read_text())
        damaged = [n for n, digest in facts["sha256"].items() if _digest(folder / f"{n}.npy") != digest]
    except (OSError, ValueError, KeyError) as error:
        raise CachedReferenceError(
            f"The cached reference in {folder} cannot be read ({error}). Remove the folder."
        ) from error
    if damaged or (facts["key"], facts["kind"]) != (key, kind):
        reason = f"{', '.join(damaged)} does not match its digest" if damaged else "it is of another run"
        raise CachedReferenceError(
            f"The cached reference in {folder} cannot be used: {reason}. Remove the folder."
        )
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in facts["sha256"]}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
