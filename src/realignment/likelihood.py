"""Log-probabilities of responses: one forward pass over the rows, and only response tokens are scored."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from realignment.rows import LikelihoodError, Rows, lay_out
from realignment.tokenization import TokenizedPair


def causal_model(model: Any) -> PreTrainedModel:
    """The Hugging Face causal model inside a PEFT wrapper, or the model itself."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def output_head(model: Any) -> Tensor:
    """The output embedding, shape (V, d).

    Raises:
        LikelihoodError: It carries an adapter, which a product with the matrix alone would leave out.
    """
    head = causal_model(model).get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise LikelihoodError(
            f"The output head is a {type(head).__name__}, expected a plain linear layer. Leave it out of the "
            "adapter's `target_modules`."
        )
    return head.weight


def response_hidden_states(model: Any, rows: Rows) -> Tensor:
    """Last hidden states at the positions that predict response tokens, shape (N, d).

    Raises:
        LikelihoodError: A row reaches beyond the model's sliding window, which our mask would switch off.
    """
    causal = causal_model(model)
    window = getattr(causal.config, "sliding_window", None)
    if window is not None and rows.position_ids.max() >= window:
        raise LikelihoodError(
            f"A prompt with its response has {int(rows.position_ids.max()) + 1} tokens, expected at most the "
            f"{window} of the sliding window of {type(causal).__name__}. Drop such pairs or lower "
            "`training.max_response_tokens`."
        )
    backbone = getattr(causal, causal.base_model_prefix)
    output = backbone(
        input_ids=rows.input_ids,
        attention_mask=rows.attention_mask,
        position_ids=rows.position_ids,
        use_cache=False,
    )
    return output.last_hidden_state[rows.row, rows.source]  # type: ignore[no-any-return]


@contextmanager
def scoring_mode(model: nn.Module) -> Iterator[None]:
    """Dropout off: gradient, scores and reference see one function (peft returns a LoRA in train mode)."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class _TokenLogProbabilities(torch.autograd.Function):
    """log π(target) tile by tile; the backward recomputes a tile's logits, so N × V is never held."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, target: Tensor, tile: int) -> Tensor:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        value = torch.empty(hidden.shape[0], dtype=exact, device=hidden.device)
        normaliser = torch.empty_like(value)
        for start in range(0, hidden.shape[0], tile):
            part = slice(start, start + tile)
            logits = (hidden[part] @ head.t()).to(exact)
            normaliser[part] = torch.logsumexp(logits, dim=-1)
            value[part] = logits.gather(1, target[part, None])[:, 0] - normaliser[part]
        ctx.save_for_backward(hidden, head, target, normaliser)
        ctx.tile = tile
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, head, target, normaliser = ctx.saved_tensors
        grad = grads[0]
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_head = torch.zeros_like(head) if ctx.needs_input_grad[1] else None
        for start in range(0, hidden.shape[0], ctx.tile):
            part = slice(start, start + ctx.tile)
            logits = (hidden[part] @ head.t()).to(grad.dtype)
            grad_logits = logits.sub_(normaliser[part, None]).exp_().mul_(-grad[part, None])
            grad_logits.scatter_add_(1, target[part, None], grad[part, None])
            grad_logits = grad_logits.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = grad_logits @ head
            if grad_head is not None:
                grad_head.addmm_(grad_logits.t(), hidden[part])
        return grad_hidden, grad_head, None, None


def token_log_probabilities(hidden: Tensor, head: Tensor, target: Tensor, *, tile: int = 256) -> Tensor:
    """Log-probability of each token given what precedes it, log π(target_t | prefix), shape (N,), in nats.

    Args:
        hidden: States that predict the tokens, shape (N, d).
        head: Output embedding, shape (V, d).
        target: Token ids, shape (N,).
        tile: Tokens whose logits are held at once.
    """
    values: Tensor = _TokenLogProbabilities.apply(hidden, head, target, tile)  # type: ignore[no-untyped-call]
    return values


def sum_per_response(values: Tensor, rows: Rows) -> Tensor:
    """Token values (N,) added up per response, shape (R,)."""
    return values.new_zeros(len(rows.length)).index_add(0, rows.response, values)


def response_log_probabilities(model: Any, rows: Rows) -> Tensor:
    """Sum of each response's token log-probabilities incl. end-of-turn, log π(y|x), in nats, shape (R,)."""
    hidden = response_hidden_states(model, rows)
    return sum_per_response(token_log_probabilities(hidden, output_head(model), rows.target), rows)


@torch.no_grad()
def check_shared_prompt(model: PreTrainedModel, *, tolerance: float = 1e-3) -> None:
    """Refuse a model whose attention ignores the mask (recurrent, hybrid) or whose head is not one matrix.

    Compares one laid-out row with the model's own logits on each response alone.

    Args:
        model: Any causal language model.
        tolerance: Relative; in half precision at least four units in the last place.

    Raises:
        LikelihoodError: The two differ by more than the tolerance.
    """
    tolerance = max(tolerance, 4 * torch.finfo(model.dtype).eps)
    vocabulary = output_head(model).shape[0]
    token = torch.arange(1, 16, device=model.device) * 7 % vocabulary
    prompt, first, second = (part.tolist() for part in token.split(5))
    rows = lay_out([TokenizedPair(prompt, (first, second))], pad_id=0, dtype=model.dtype).to(model.device)
    with scoring_mode(model):
        shared = response_log_probabilities(model, rows).tolist()
        alone = [_alone(model, prompt, response) for response in (first, second)]
    for value, expected in zip(shared, alone, strict=True):
        if not abs(value - expected) <= tolerance * max(1.0, abs(expected)):
            raise LikelihoodError(
                f"{type(model).__name__} gives log-probability {value:.4f} with a shared prompt and "
                f"{expected:.4f} alone: its attention does not honour a 4-D mask, or its head is not one "
                "matrix (soft-capping, bias). Expected a decoder such as Llama, Qwen, Mistral or SmolLM."
            )


def _alone(model: PreTrainedModel, prompt: list[int], response: list[int]) -> float:
    ids = torch.tensor([prompt + response], device=model.device)
    logprobs = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    return float(logprobs[torch.arange(len(response)), response].sum())
