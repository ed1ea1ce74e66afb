"""Choose the device and the precision to compute in: `auto` takes what the machine does well."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def choose_device(setting: str) -> str:
    """Return the device of a setting.

    Args:
        setting: A device of torch, which is returned as it is, or ``auto``.

    Returns:
        For ``auto`` the GPU where torch finds one, else the CPU.
    """
    import torch

    if setting != "auto":
        return setting
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def choose_dtype(setting: str, device: str) -> "torch.dtype":
    """Return the precision of a setting on a device.

    Differences between a model and its reference are safe in bfloat16: both run the same kernels on the same
    rows.

    Args:
        setting: Name of a dtype of torch, or ``auto``.
        device: Where the model is computed.

    Returns:
        For ``auto`` bfloat16 where the hardware multiplies it natively, twice as fast there; else float32.
    """
    import torch

    if setting != "auto":
        return getattr(torch, setting)  # type: ignore[no-any-return]
    if device.startswith("cuda"):
        # An older GPU emulates bfloat16, slower than it multiplies float32.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    if device == "cpu":
        # A CPU without these instructions converts every number to float32 and back.
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    return torch.float32
