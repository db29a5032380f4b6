"""Names that commands, settings and messages use, without loading a network for them."""

from __future__ import annotations

from pathlib import Path

MODELS = tuple(f"yolov5{scale}{suffix}" for suffix in ("", "u") for scale in "nsmlx")
"""Names of the official networks: yolov5n to yolov5x and, anchor-free, yolov5nu to yolov5xu."""

DEMO = "demo"
"""Name of the network that comes with this package: small, for people and vehicles, good for a demonstration."""

DEFAULT_SPLIT = "4.m"
"""Where a network is split unless told otherwise: the bottlenecks' end in layer 4, two tensors of which cross."""

SAFETENSORS = ".safetensors"
"""Suffix of checkpoints without a pickle; others mostly end in .pt."""

EXPORT_DESCRIPTION = "splitcast.json"
"""The file of an exported network's folder that says what the others are."""


def is_path(model: str) -> bool:
    """Whether a model that is given by name or path is a path: by its folder or its ending, or because it is there."""
    path = Path(model).expanduser()
    if model in (*MODELS, DEMO) or not path.parts:
        return False
    return len(path.parts) > 1 or bool(path.suffix) or path.exists()
