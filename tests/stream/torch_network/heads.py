"""A detection head with what it reads."""

from __future__ import annotations

import torch

from stream.network.graph import INPUT
from stream.torch_network.graph import run
from stream.torch_network.model import random_model

SIZE = (64, 96)  # (H, W) of the picture: 8x12, 4x6 and 2x3 cells


def head_and_features(name):
    """The detection head, what it reads, and what it predicts; a batch of two."""
    graph = random_model(name).graph
    *body, detect = graph.nodes
    picture = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = list(run(body, {INPUT: picture}, detect.inputs).values())
        return detect.module, features, detect.module(features)
