"""Load a causal language model and its tokenizer from a local folder, ready for chat."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from realignment.model.devices import choose_device, choose_dtype
from realignment.model.store import ModelError, require_model, summarise_error
from realignment.parameters.base import ModelParameters

# torch and transformers take seconds to import; listing the pipelines must not wait for them.
if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For base models without a chat template: ``User: …``, blank line, ``Assistant: …``, end of text."""


def load_model(
    path: Path | str, *, dtype: str, device: str, quantize: str | None = None
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load a causal language model and its tokenizer, with a padding token and a chat template.

    Where the tokenizer has no padding token, the end-of-text token stands in; where it has no chat template,
    `PLAIN_CHAT_TEMPLATE` does.

    Args:
        path: A folder written by ``save_pretrained``.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``auto`` (as stored).
        device: ``cpu``, ``cuda``, ``cuda:1`` …
        quantize: ``nf4`` or ``int8``: linear layers by bitsandbytes, to train a LoRA on; None: as stored.

    Returns:
        Model and tokenizer.

    Raises:
        ModelError: The folder holds no causal language model, or bitsandbytes is not installed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    require_model(Path(path), str(path))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path))
        if quantize is None:
            model = AutoModelForCausalLM.from_pretrained(str(path), dtype=dtype).to(device)
        else:
            quantization = _quantization_config(quantize, dtype)
            model = AutoModelForCausalLM.from_pretrained(
                str(path), dtype=dtype, quantization_config=quantization, device_map={"": device}
            )
    except ModelError:
        raise
    except Exception as error:  # transformers, tokenizers and safetensors each raise errors of their own
        raise ModelError(
            f"{path} does not load as a causal language model: {summarise_error(error)}"
        ) from error
    _complete_tokenizer(tokenizer, path)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def load_configured_model(
    path: str | Path, parameters: ModelParameters, *, quantize: str | None = None
) -> tuple[Any, Any]:
    """Load a model and its tokenizer in the precision and on the device that the parameters name.

    Args:
        path: A folder written by ``save_pretrained``.
        parameters: Its `dtype` and `device` are used.
        quantize: See `load_model`.

    Returns:
        Model, in evaluation mode, and tokenizer.
    """
    device = choose_device(parameters.device)
    dtype = str(choose_dtype(parameters.dtype, device)).removeprefix("torch.")
    model, tokenizer = load_model(path, dtype=dtype, device=device, quantize=quantize)
    return model.eval(), tokenizer


def own_chat_template(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """Return the chat template that came with the model; None where `load_model` had to give it one."""
    template = tokenizer.chat_template
    return None if template == PLAIN_CHAT_TEMPLATE else template


def _complete_tokenizer(tokenizer: Any, path: Path | str) -> None:
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                f"The tokenizer in {path} has neither a padding nor an end-of-text token; give it one."
            )
        tokenizer.pad_token = tokenizer.eos_token
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_CHAT_TEMPLATE


def _quantization_config(kind: str, dtype: str) -> Any:
    """Settings of QLoRA (Dettmers et al. 2023, arXiv:2305.14314): normal floats, scales quantised again."""
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise ModelError(
            f"`model.quantize: {kind}` needs the package bitsandbytes, which is not installed: "
            "`pip install 'realignment[qlora]'`, or set it to null."
        )
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
