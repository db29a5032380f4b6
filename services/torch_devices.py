"""The device that torch computes on, from the settings."""

from __future__ import annotations

import torch

from services.errors import SettingsError


def choose_device(device: str) -> str:
    """`auto` becomes CUDA where there is one, else the CPU; other names stay.

    Raises SettingsError for a device that this machine or torch does not have.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f"--device: no {device!r} here ({reason}); use auto or cpu") from None
    return device
