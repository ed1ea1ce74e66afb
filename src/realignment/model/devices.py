"""Where and in which precision to compute: `auto` takes what the machine does well."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def choose_device(wanted: str) -> str:
    """``auto``: the GPU where torch finds one, else the CPU."""
    import torch

    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def choose_dtype(wanted: str, device: str) -> "torch.dtype":
    """``auto``: bfloat16 where the hardware multiplies it natively, there twice as fast; else float32.

    Differences between a model and its reference are safe in bfloat16: both run the same kernels on the same
    rows.
    """
    import torch

    if wanted != "auto":
        return getattr(torch, wanted)  # type: ignore[no-any-return]
    if device.startswith("cuda"):
        # An older GPU emulates bfloat16, slower than it multiplies float32.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    if device == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    return torch.float32
