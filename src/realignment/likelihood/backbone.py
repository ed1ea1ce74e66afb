"""The parts of a causal language model: backbone, output head, compute dtype, and the mode for scoring."""

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
    """Return the Hugging Face causal model inside a PEFT wrapper, or the model itself."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def output_head(model: Any) -> Head:
    """Return the head that turns the model's hidden states into logits.

    Raises:
        LikelihoodError: The head is not one matrix, or carries an adapter, which a product with the matrix
            alone would leave out.
    """
    causal = causal_model(model)
    config = causal.config.get_text_config()
    head = causal.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None:
        kind = type(head).__name__ + (" with a bias" if isinstance(head, nn.Linear) else "")
        raise LikelihoodError(
            f"The output head is a {kind}, expected a plain linear layer. Leave it out of the adapter's "
            "`target_modules`."
        )
    # Cohere multiplies its logits by `logit_scale`, Granite divides them by `logits_scaling`.
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
    softcap = getattr(config, "final_logit_softcapping", None)
    return Head(head.weight, softcap, float(scale))


def head_name(model: nn.Module, head: Head) -> str | None:
    """Return the name of the parameter that is the head's matrix (a tied embedding's, too), or None."""
    return next((name for name, p in model.named_parameters() if p is head.weight), None)


class _Autocast:
    """A mixin of a backbone's class: products in bfloat16 over weights in float32."""

    def forward(self, *args: Any, **options: Any) -> Any:
        """Run the backbone under autocast; its hidden states are float32."""
        with torch.autocast(self.device.type, torch.bfloat16):  # type: ignore[attr-defined]
            output = super().forward(*args, **options)  # type: ignore[misc]
        output.last_hidden_state = output.last_hidden_state.float()
        return output


def autocast(model: Any) -> None:
    """Make every forward pass of a float32 model multiply in bfloat16, also those of its copies.

    In the model and not around it, because reference, scores and training must see one function.
    """
    body = backbone(model)
    kind = type(body)
    # A new class instead of a replaced method: `copy.deepcopy` keeps an instance's class.
    body.__class__ = type(kind.__name__, (_Autocast, kind), {})


def compute_dtype(model: Any) -> torch.dtype:
    """Return the dtype of the model's products."""
    return torch.bfloat16 if isinstance(backbone(model), _Autocast) else causal_model(model).dtype


def backbone(model: Any) -> Any:
    """Return the model without its head."""
    causal = causal_model(model)
    return getattr(causal, causal.base_model_prefix)


@contextmanager
def scoring_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, so that gradient, scores and reference see one function.

    A new LoRA is in train mode, so this is needed for every model. Layers checkpoint their activations in
    train mode alone, so those that do stay in it; what they compute, also again in a backward, is computed in
    evaluation mode. The model's own mode comes back at the end.
    """
    was_training = model.training
    model.eval()
    checkpointing: list[tuple[Any, Any]] = []
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
            checkpoint = module._gradient_checkpointing_func
            checkpointing.append((module, checkpoint))
            module._gradient_checkpointing_func = _checkpoint_in_evaluation_mode(module, checkpoint)
            module.training = True
        # Four-bit layers of bitsandbytes repack their weights in evaluation mode, for good, on some CPUs.
        elif type(module).__name__ == "Linear4bit":
            module.training = True
    try:
        yield
    finally:
        for module, checkpoint in checkpointing:
            module._gradient_checkpointing_func = checkpoint
        model.train(was_training)


def _checkpoint_in_evaluation_mode(layer: nn.Module, checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a layer's checkpoint so that its forward sees evaluation mode: OPT's and Falcon's drop out."""

    def checkpoint_evaluated(forward: Callable[..., Any], *inputs: Any) -> Any:
        def evaluated(*inputs: Any) -> Any:
            was_training = layer.training
            layer.training = False
            try:
                return forward(*inputs)
            finally:
                layer.training = was_training

        return checkpoint(evaluated, *inputs)

    return checkpoint_evaluated
