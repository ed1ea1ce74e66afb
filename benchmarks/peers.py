"""Other implementations: the published TRACE loop, textbook methods, KLs; TRL is in `trl_peer`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from harness import Result
from ours import collect_gradients
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from realignment.impact.scores import Gradient
from realignment.objective.hybrid import Example, Treatment

BETA = 0.1
PUBLISHED_LENGTH = 256
"""Tokens that the published code pads every sequence to."""


# The published loop: one sequence at a time, padded to 256 tokens, full logits, a second model as reference.
# Its `empty_cache()` after every pass is left out.


def _padded(prompt: list[int], response: list[int], device: Any) -> tuple[Tensor, Tensor, Tensor]:
    real = len(prompt) + len(response)
    total = max(PUBLISHED_LENGTH, real)
    ids = torch.tensor([[*prompt, *response, *[0] * (total - real)]], device=device)  # (1, total)
    position = torch.arange(total, device=device)[None]
    return ids, (position < real).long(), (position >= len(prompt)) & (position < real)


def _log_probability(model: Any, sequence: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    ids, attended, scored = sequence
    logits = model(input_ids=ids, attention_mask=attended, use_cache=False).logits[:, :-1].float()
    tokens = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return (tokens * scored[:, 1:]).sum()


def _flat_gradient(model: nn.Module, value: Tensor) -> Tensor:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, parameters)])


def published_scores(
    model: Any, reference_model: Any, conflicts: Sequence[Example], direction: Gradient
) -> Result:
    """Compute impact scores as the published code does.

    INVERT: two passes of the policy and two of the reference without gradient give the coefficient, then each
    response is passed forward and backward; PUNISH: each response is passed by policy (with gradient) and
    reference. Flat gradients are concatenated and multiplied with the flat gold gradient.
    """
    gold = torch.cat([g.reshape(-1) for g in direction.values()])
    scores = []
    for example in conflicts:
        sequences = [_padded(example.tokens.prompt, r, model.device) for r in example.tokens.responses]
        with torch.no_grad():
            base = [_log_probability(reference_model, s) for s in sequences]
        if example.treatment == Treatment.PREFER:
            with torch.no_grad():
                now = [_log_probability(model, s) for s in sequences]
            margin = (now[0] - base[0]) - (now[1] - base[1])
            first, second = (_flat_gradient(model, _log_probability(model, s)) for s in sequences)
            gradient = -BETA * torch.sigmoid(-BETA * margin) * (first - second)
        else:
            gradient = torch.zeros_like(gold)
            for sequence, log_reference in zip(sequences, base, strict=True):
                loss = -F.logsigmoid(-BETA * (_log_probability(model, sequence) - log_reference))
                gradient = gradient + _flat_gradient(model, loss)
        scores.append(torch.dot(gold, gradient))
    return {"scores": [torch.stack(scores)]}


def published_step(model: Any, reference_model: Any, batch: Sequence[Example]) -> Result:
    """Run a training step as the published code does: four passes for each pair, then one backward."""
    model.zero_grad()
    total = torch.zeros((), device=model.device)
    for example in batch:
        sequences = [_padded(example.tokens.prompt, r, model.device) for r in example.tokens.responses]
        first, second = (_log_probability(model, s) for s in sequences)
        with torch.no_grad():
            base_first, base_second = (_log_probability(reference_model, s) for s in sequences)
        total = total - F.logsigmoid(BETA * ((first - base_first) - (second - base_second))) / len(batch)
    total.backward()
    return {"loss": [total], "gradient": collect_gradients(model)}


# Textbook methods for an inner product per pair


def _pair_loss(log_probabilities: Tensor, is_preference: Tensor) -> Tensor:
    """Return the loss of a pair at the reference, for its gradient: the value is a constant there."""
    first, second = log_probabilities - log_probabilities.detach()
    suppress = -F.logsigmoid(-BETA * first) - F.logsigmoid(-BETA * second)
    return torch.where(is_preference, -F.logsigmoid(BETA * (first - second)), suppress)


def per_sample_scores(model: Any, conflicts: Sequence[Example], direction: Gradient) -> Result:
    """Compute scores by one forward and backward per pair: both responses padded, dense logits."""
    gold = torch.cat([g.reshape(-1) for g in direction.values()])
    scores = []
    for example in conflicts:
        ids, attended, scored = _two_rows(example, max(_row_lengths(example)), model.device)
        logits = model(input_ids=ids, attention_mask=attended, use_cache=False).logits[:, :-1].float()
        tokens = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        is_preference = torch.tensor(example.treatment == Treatment.PREFER, device=model.device)
        loss = _pair_loss((tokens * scored[:, 1:]).sum(-1), is_preference)
        scores.append(torch.dot(gold, _flat_gradient(model, loss)))
    return {"scores": [torch.stack(scores)]}


def _row_lengths(example: Example) -> list[int]:
    return [len(example.tokens.prompt) + len(response) for response in example.tokens.responses]


def _two_rows(example: Example, total: int, device: Any) -> tuple[Tensor, Tensor, Tensor]:
    prompt = len(example.tokens.prompt)
    ends = _row_lengths(example)
    rows = [
        [*example.tokens.prompt, *response, *[0] * (total - end)]
        for response, end in zip(example.tokens.responses, ends, strict=True)
    ]
    position = torch.arange(total, device=device)
    end = torch.tensor(ends, device=device)[:, None]  # (2, 1)
    is_response = (position >= prompt) & (position < end)
    return torch.tensor(rows, device=device), (position < end).long(), is_response


def vmap_scores(model: Any, conflicts: Sequence[Example], direction: Gradient) -> Result:
    """Compute all gradients at once by `vmap(grad)`, each of the size of the trained parameters."""
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    total = max(end for example in conflicts for end in _row_lengths(example))
    rows = [_two_rows(example, total, model.device) for example in conflicts]
    ids, attended, scored = (torch.stack(part) for part in zip(*rows, strict=True))
    visible = attended[:, :, None, None, :].bool() & torch.ones(total, total, dtype=torch.bool).tril()
    mask = torch.zeros(visible.shape).masked_fill_(~visible, torch.finfo(torch.float32).min)
    is_preference = torch.tensor([e.treatment == Treatment.PREFER for e in conflicts])
    positions = torch.arange(total)[None]

    def loss(weights: Gradient, ids: Tensor, mask: Tensor, scored: Tensor, is_preference: Tensor) -> Tensor:
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "use_cache": False}
        logits = functional_call(model, weights, (), inputs).logits[:, :-1]
        tokens = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        return _pair_loss((tokens * scored[:, 1:]).sum(-1), is_preference)

    each = vmap(grad(loss), in_dims=(None, 0, 0, 0, 0))(trained, ids, mask, scored, is_preference)
    return {"scores": [sum((each[name] * direction[name]).flatten(1).sum(1) for name in trained)]}


# The KL of two models over the vocabulary


def kl_of(
    value: Callable[[Tensor, Tensor, Tensor], Tensor], hidden: Tensor, head: Tensor, reference_hidden: Tensor
) -> Result:
    """Compute a KL and its gradient with respect to the hidden states."""
    hidden = hidden.clone().requires_grad_()
    result = value(hidden, head, reference_hidden)
    result.backward()
    return {"kl": [result], "gradient": [hidden.grad]}


def published_kl(hidden: Tensor, head: Tensor, reference_hidden: Tensor) -> Tensor:
    """Compute the KL from both full softmaxes, with log(p + 10⁻¹²)."""
    q, p = ((states @ head.t()).float().softmax(-1) for states in (hidden, reference_hidden))
    return (p * (torch.log(p + 1e-12) - torch.log(q + 1e-12))).sum(-1).mean()


def dense_kl(hidden: Tensor, head: Tensor, reference_hidden: Tensor) -> Tensor:
    """Compute the KL by `F.kl_div` of both full log-softmaxes."""
    log_q, log_p = ((states @ head.t()).log_softmax(-1) for states in (hidden, reference_hidden))
    return F.kl_div(log_q, log_p, log_target=True, reduction="sum") / len(hidden)


def trl_kl(hidden: Tensor, head: Tensor, reference_hidden: Tensor) -> Tensor:
    """Compute the forward KL by TRL's tiled divergence."""
    divergence, _ = ChunkedDivergenceFunction.apply(hidden, head, None, reference_hidden, head, None, 0.0)
    return divergence.mean()
