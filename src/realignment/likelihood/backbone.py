"""Log-probabilities of responses: one forward pass over the rows, and only response tokens are scored."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from realignment.likelihood.head import Head
from realignment.likelihood.limits import LikelihoodError


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
