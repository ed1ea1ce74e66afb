"""Log-probabilities of responses: one forward pass over the rows, and only response tokens are scored."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from realignment.packing.attention import SHARED_PROMPTS, windows_handed_over
from realignment.packing.limits import LikelihoodError, position_limit
from realignment.packing.rows import Layout, Rows, lay_out
from realignment.packing.tokenization import TokenizedPair
from realignment.vocabulary.head import Head
from realignment.vocabulary.sweeps import token_log_probabilities

logger = logging.getLogger(__name__)

HALF_UNITS = 8
"""Units in the last place that a token's log-probability may differ by between two orders of the same sums.
Measured in bfloat16: 3 of SmolLM2-135M's 30 layers; 12 where a hybrid's convolution reads a sibling."""


def causal_model(model: Any) -> PreTrainedModel:
    """The Hugging Face causal model inside a PEFT wrapper, or the model itself."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def output_head(model: Any) -> Head:
    """What turns the model's hidden states into logits.

    Raises:
        LikelihoodError: The head is not one matrix, or carries an adapter, which a product with the matrix
            alone would leave out.
    """
    causal = causal_model(model)
    head, config = causal.get_output_embeddings(), causal.config.get_text_config()
    if not isinstance(head, nn.Linear) or head.bias is not None:
        found = type(head).__name__ + (" with a bias" if isinstance(head, nn.Linear) else "")
        raise LikelihoodError(
            f"The output head is a {found}, expected a plain linear layer. Leave it out of the adapter's "
            "`target_modules`."
        )
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
    return Head(head.weight, getattr(config, "final_logit_softcapping", None), float(scale))


def head_name(model: nn.Module, head: Head) -> str | None:
    """Name of the parameter that is the head's matrix (a tied embedding's, too); None where none is."""
    return next((name for name, p in model.named_parameters() if p is head.weight), None)


def response_hidden_states(model: Any, rows: Rows) -> Tensor:
    """Last hidden states at the places that predict response tokens, shape (N, d)."""
    causal = causal_model(model)
    options: dict[str, Any] = {"attention_mask": rows.is_token}
    if rows.shares_prompts:
        if causal.config._attn_implementation != SHARED_PROMPTS:
            # Stays on: it is plain attention for every other caller, and checkpointed layers run again later.
            causal.set_attn_implementation(SHARED_PROMPTS)
        # A mask of four dimensions is taken for a finished one, so none is built. Ours is never read: a model
        # that reads it all the same has no number that could be taken for a result.
        unread = torch.full((1, 1, 1, 1), float("nan"), device=rows.input_ids.device)
        options = {"attention_mask": unread, "position_ids": rows.position_ids, "prompt_sharing": rows}
    output = backbone(model)(input_ids=rows.input_ids, use_cache=False, **options)
    states: Tensor = output.last_hidden_state
    return states.flatten(0, 1).index_select(0, rows.source)


class _Autocast:
    """Mixed into a backbone's class: products in bfloat16 over weights in float32."""

    def forward(self, *args: Any, **options: Any) -> Any:
        """The backbone's own, hidden states in float32."""
        with torch.autocast(self.device.type, torch.bfloat16):  # type: ignore[attr-defined]
            output = super().forward(*args, **options)  # type: ignore[misc]
        output.last_hidden_state = output.last_hidden_state.float()
        return output


def autocast(model: Any) -> None:
    """Have every forward pass of a model in float32 multiply in bfloat16, also those of its copies.

    In the model and not around it, because reference, scores and training must see one function.
    """
    body = backbone(model)
    kind = type(body)
    body.__class__ = type(kind.__name__, (_Autocast, kind), {})


def compute_dtype(model: Any) -> torch.dtype:
    """What the model multiplies in."""
    return torch.bfloat16 if isinstance(backbone(model), _Autocast) else causal_model(model).dtype


def backbone(model: Any) -> Any:
    """The model without its head."""
    causal = causal_model(model)
    return getattr(causal, causal.base_model_prefix)


@contextmanager
def scoring_mode(model: nn.Module) -> Iterator[None]:
    """Dropout off: gradient, scores and reference see one function (peft returns a LoRA in train mode).

    Layers checkpoint their activations in train mode alone, so those that do stay in it; what they compute,
    also again in a backward, is computed in evaluation mode.
    """
    was_training = model.training
    model.eval()
    checkpointing: list[tuple[Any, Any]] = []
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
            plain = module._gradient_checkpointing_func
            checkpointing.append((module, plain))
            module._gradient_checkpointing_func = _evaluated(module, plain)
            module.training = True
        # Four-bit layers of bitsandbytes repack their weights in evaluation mode, for good, on some CPUs.
        elif type(module).__name__ == "Linear4bit":
            module.training = True
    try:
        yield
    finally:
        for module, plain in checkpointing:
            module._gradient_checkpointing_func = plain
        model.train(was_training)


def _evaluated(layer: nn.Module, checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    """The checkpoint of a layer whose forward is told that it does not train: OPT's and Falcon's drop out."""

    def checkpoint_evaluated(forward: Callable[..., Any], *inputs: Any) -> Any:
        def evaluated(*inputs: Any) -> Any:
            trains, layer.training = layer.training, False
            try:
                return forward(*inputs)
            finally:
                layer.training = trains

        return checkpoint(evaluated, *inputs)

    return checkpoint_evaluated


def sum_per_response(values: Tensor, rows: Rows) -> Tensor:
    """Token values (N,) added up per response, shape (R,), in float64 where the device has it.

    Hundreds of float32 numbers added one after another lose more than a whole training step may differ by.
    """
    exact = values if values.device.type == "mps" else values.double()
    total = exact.new_zeros(len(rows.length)).index_add(0, rows.response, exact)
    return total.to(values.dtype)


def response_log_probabilities(model: Any, rows: Rows) -> Tensor:
    """Sum of each response's token log-probabilities incl. end-of-turn, log π(y|x), in nats, shape (R,)."""
    hidden = response_hidden_states(model, rows)
    return sum_per_response(token_log_probabilities(hidden, output_head(model), rows.target), rows)


@torch.no_grad()
def can_share_prompts(model: PreTrainedModel, *, tolerance: float = 1e-3) -> bool:
    """Whether log-probabilities over rows that share prompts are the model's own; measured, not looked up.

    A model whose tokens meet elsewhere than in attention (recurrent, hybrid), or whose attention knows more
    than windows and soft-capping, cannot; its pairs are laid out separately. Nor can one whose attention is
    not told of its window, which may be longer than any probe.

    Args:
        model: Any causal language model.
        tolerance: Of each token's log-probability, relative (absolute below one nat); in half precision at
            least `HALF_UNITS` units in the last place.

    Raises:
        LikelihoodError: The separate layout differs as well: the head is not what `output_head` takes it for.
    """
    tolerance = max(tolerance, HALF_UNITS * torch.finfo(compute_dtype(model)).eps)
    attention, pair = model.config._attn_implementation, _probe(output_head(model).weight.shape[0])
    with scoring_mode(model):
        expected = torch.cat([_alone(model, pair.prompt, response) for response in pair.responses])
        with windows_handed_over() as windows:
            shared = _difference(model, lay_out([pair], pad_id=0).to(model.device), expected, tolerance)
        shared = shared or _unknown_windows(model.config.get_text_config(), windows)
        if not shared:
            return True
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
        rows = lay_out([pair], pad_id=0, share_prompts=False).to(model.device)
        separate = _difference(model, rows, expected, tolerance)
    if separate:
        raise LikelihoodError(
            f"{type(model).__name__} gives other log-probabilities by its last hidden states and its head "
            f"than by its own logits: {separate}. Expected a model whose logits are head · hidden state, "
            "such as Llama, Qwen, Gemma, Mistral, GPT-2 or SmolLM."
        )
    logger.warning(
        "%s cannot share a prompt between responses (%s): every response is computed with its own copy of "
        "the prompt, in padded rows. Results are the same; long prompts take longer.",
        type(model).__name__,
        shared,
    )
    return False


def _probe(vocabulary: int) -> TokenizedPair:
    """Longer than a sliding window of a few dozen tokens, so that it is not mistaken for full attention."""
    tokens = (torch.arange(1, 97) * 7 % vocabulary).tolist()
    return TokenizedPair(tokens[:48], (tokens[48:72], tokens[72:]))


def _difference(model: PreTrainedModel, rows: Rows, expected: Tensor, tolerance: float) -> str:
    """What is wrong with the tokens' log-probabilities over these rows; empty: nothing."""
    try:
        hidden = response_hidden_states(model, rows)
        found = token_log_probabilities(hidden, output_head(model), rows.target)
    except Exception as error:  # whatever a foreign forward raises, the answer is: it cannot
        return f"{type(error).__name__}: {error}"
    off = (found - expected).abs()
    if bool((off <= tolerance * expected.abs().clamp(min=1)).all()):  # false where it is not a number
        return ""
    worst = int(off.nan_to_num(nan=torch.inf).argmax())
    return f"a token has {float(found[worst]):.4g} nats, expected {float(expected[worst]):.4g}"


def _unknown_windows(config: Any, handed_over: set[int | None]) -> str:
    """Which of a model's windows its attention was not told of; empty: none."""
    kinds = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    used = getattr(config, "layer_types", None) or ["sliding_attention"]
    windows = {getattr(config, size, None) or None for kind, size in kinds.items() if kind in used}
    unknown = windows - handed_over - {None}
    return f"its attention is not told of its window of {unknown.pop()} tokens" if unknown else ""


def choose_layout(model: PreTrainedModel, *, pad_id: int) -> Layout:
    """The layout in which the model's likelihoods are exact, with shared prompts where it can."""
    return Layout(pad_id, can_share_prompts(model), position_limit(model))


def _alone(model: PreTrainedModel, prompt: list[int], response: list[int]) -> Tensor:
    """Log-probabilities of a response's tokens by the model's own logits, shape (N,)."""
    ids = torch.tensor([prompt + response], device=model.device)
    logits = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    exact: Tensor = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    return exact.gather(1, ids[0, len(prompt) :, None])[:, 0]
