"""Convert a GGUF file into a folder that transformers loads."""

from pathlib import Path

from realignment.model.store import Check, ModelError, Origin, digest_file


def convert_gguf(file: Path, folder: Path, *, check: Check, progress: bool) -> Origin:
    """Write a GGUF file as a ``save_pretrained`` folder in float32, once: later loads take seconds.

    Quantised weights are dequantised: they do not become more precise, only trainable.

    Args:
        file: The GGUF file.
        folder: Receives model and tokenizer.
        check: Called with the sha256 of the file before it is converted.
        progress: Whether to show a bar.

    Returns:
        Digest of the file.

    Raises:
        ModelError: The file is missing, is not GGUF, or has an architecture that transformers cannot convert.
    """
    if not file.is_file():
        raise ModelError(f"No GGUF file {file}. Give the path of a file, as gguf:/path/to/file.gguf.")
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ModelError(f"{file} is no GGUF file: its first four bytes are not 'GGUF'.")
    sha256 = digest_file(file, progress=progress)
    check(sha256)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    parent = str(file.parent)
    try:
        tokenizer = AutoTokenizer.from_pretrained(parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(
            parent,
            gguf_file=file.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
    # transformers raises KeyError, ValueError, NotImplementedError …, by architecture.
    except Exception as error:
        raise ModelError(f"transformers cannot convert {file}: {type(error).__name__}: {error}") from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Origin(sha256)
