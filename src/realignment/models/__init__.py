"""Base models: one string names where a model comes from; what is used is a local folder, checked."""

import errno
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realignment.models.devices import choose_device, choose_dtype
from realignment.models.sources import choose_fetcher
from realignment.models.store import (
    ModelError,
    ModelReference,
    check_digest,
    digest_file,
    digest_folder,
    keep,
    require_model,
)
from realignment.parameters import ModelParameters

# torch and transformers take seconds to import; listing the pipelines must not wait for them.
if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For base models without a chat template: ``User: …``, blank line, ``Assistant: …``, end of text."""


def fetch(
    source: str,
    *,
    folder: Path,
    sha256: str | None = None,
    revision: str | None = None,
    progress: bool = True,
) -> ModelReference:
    """The model that `source` names, as a local folder; what is there already is never fetched again.

    Fetched and converted models lie under ``<folder>/<name>-<first 8 of sha256>/`` with a ``source.json``;
    folders and registered models are used where they are. Of two processes one fetches and the other waits.

    Args:
        source: One of `sources.SOURCES`; ``#sha256=…`` at its end pins the digest together with the source.
        folder: Where fetched models are kept; made if it is missing.
        sha256: Expected digest (see `ModelReference.sha256`); None accepts any.
        revision: Branch, tag or commit of a Hub model. A branch is looked up once, at the first fetch.
        progress: Whether long steps show a bar.

    Raises:
        ModelError: With what was found and what to do.
    """
    source, _, pinned = source.partition("#sha256=")
    sha256 = sha256 or pinned or None
    if in_place := _find_in_place(source):
        digest = digest_folder(in_place, progress=progress)
        check_digest(digest, sha256, source)
        return ModelReference(source, str(in_place), digest)
    file = Path(source.removeprefix("gguf:")).expanduser()
    if source.startswith("gguf:") and sha256 is None and file.is_file():
        sha256 = digest_file(file, progress=progress)  # the file may have changed since it was converted
    fill = choose_fetcher(source, revision=revision, sha256=sha256, progress=progress)
    try:
        return keep(source, folder, fill, sha256=sha256, revision=revision)
    except ModelError:
        raise
    except Exception as error:  # the disk, the Hub client and safetensors each raise errors of their own
        raise _explain(error, source, folder) from error


def load(
    path: Path | str, *, dtype: str, device: str, quantize: str | None = None
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A causal language model and its tokenizer, ready for chat: padding token and chat template are set.

    Where the tokenizer has no padding token, the end-of-text token stands in; where it has no chat template,
    `PLAIN_CHAT_TEMPLATE` does.

    Args:
        path: A folder written by ``save_pretrained``.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``auto`` (as stored).
        device: ``cpu``, ``cuda``, ``cuda:1`` …
        quantize: ``nf4`` or ``int8``: linear layers by bitsandbytes, to train a LoRA on; None: as is.

    Raises:
        ModelError: If the folder holds no causal language model, or bitsandbytes is not there.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    require_model(Path(path), str(path))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path))
        if quantize is None:
            model = AutoModelForCausalLM.from_pretrained(str(path), dtype=dtype).to(device)
        else:
            bits = _quantization(quantize, dtype)
            model = AutoModelForCausalLM.from_pretrained(
                str(path), dtype=dtype, quantization_config=bits, device_map={"": device}
            )
    except ModelError:
        raise
    except Exception as error:  # transformers, tokenizers and safetensors each raise errors of their own
        raise ModelError(f"{path} does not load as a causal language model: {_summarise(error)}") from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                f"The tokenizer in {path} has neither a padding nor an end-of-text token; give it one."
            )
        tokenizer.pad_token = tokenizer.eos_token
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def load_configured(
    path: str | Path, parameters: ModelParameters, *, quantize: str | None = None
) -> tuple[Any, Any]:
    """Model and tokenizer, in the precision and on the device that the parameters ask for."""
    device = choose_device(parameters.device)
    dtype = str(choose_dtype(parameters.dtype, device)).removeprefix("torch.")
    model, tokenizer = load(path, dtype=dtype, device=device, quantize=quantize)
    return model.eval(), tokenizer


def own_chat_template(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """The chat template that came with the model; None where `load` had to give it one."""
    template = tokenizer.chat_template
    return None if template == PLAIN_CHAT_TEMPLATE else template


def _quantization(kind: str, dtype: str) -> Any:
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


def _find_in_place(source: str) -> Path | None:
    if source.startswith("models:/"):
        from realignment.registry import load_registered  # needs MLflow, which only this source does

        path = Path(load_registered(source))
    elif Path(source).expanduser().is_dir():
        path = Path(source).expanduser()
    else:
        return None
    require_model(path, source)
    return path.resolve()


def _explain(error: Exception, source: str, folder: Path) -> ModelError:
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        free = shutil.disk_usage(folder).free / 2**20
        return ModelError(
            f"The disk is full: fetching {source} into {folder} needs more than the {free:.0f} MiB left. "
            "Make room or keep models on another disk."
        )
    if isinstance(error, OSError) and error.filename is not None:
        return ModelError(f"Fetching {source} failed on {error.filename}: {error.strerror}.")
    return ModelError(f"Fetching {source} failed: {_summarise(error)}")


def _summarise(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:600]}"
