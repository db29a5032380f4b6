"""Trains the small network by which an encoder foresees which blocks the detections depend on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from codec.feature.calibration import SensitivityExample
from codec.feature.step_network import HIDDEN, MIXED, StepNetwork
from codec.layout import FloatArray

UPDATES = 6000  # of the weights, one picture each; more fit the pictures, not the sensitivity
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 5e-2
DROPOUT = 0.2  # of whole measures


class _StepModule(nn.Module):
    """StepNetwork in torch, with measures standardized."""

    def __init__(self, measures: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(DROPOUT)
        self.mix = nn.Conv2d(measures, MIXED + 2, 1)
        self.first = nn.Conv2d(MIXED, HIDDEN, 3, padding=1, padding_mode="replicate")
        self.second = nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1, padding_mode="replicate")
        self.output = nn.Conv2d(HIDDEN, 1, 1, bias=False)

    def forward(self, measures: torch.Tensor) -> torch.Tensor:
        """Log sensitivity (B, down, across) of measures (B, M, down, across)."""
        mixed = self.mix(self.dropout(measures))
        planes = F.relu(self.second(F.relu(self.first(F.relu(mixed[:, :MIXED])))))
        around = F.avg_pool2d(F.pad(mixed[:, -1:], (1, 1, 1, 1), mode="replicate"), 3, 1)
        summed: torch.Tensor = self.output(planes) + mixed[:, MIXED : MIXED + 1] + around
        return summed[:, 0]


def train_step_network(examples: Sequence[SensitivityExample], seed: int) -> StepNetwork:
    """The network that foresees best the log sensitivities of the examples; the same for the same seed."""
    measures = np.concatenate(
        [example.measures.reshape(len(example.measures), -1) for example in examples], 1
    )
    mean, deviation = measures.mean(1), measures.std(1) + 1e-6 * (1 + np.abs(measures).max())
    target = float(np.mean([example.log_sensitivity.mean() for example in examples]))
    inputs = [
        torch.from_numpy((example.measures - mean[:, None, None]) / deviation[:, None, None])[None]
        for example in examples
    ]
    targets = [torch.from_numpy(example.log_sensitivity - target)[None] for example in examples]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _StepModule(len(mean)).train()
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=UPDATES)
        order: list[int] = []
        for _ in range(UPDATES):
            order = order or torch.randperm(len(examples)).tolist()
            index = order.pop()
            loss = F.mse_loss(network(inputs[index]), targets[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return _exported(network.eval(), mean, deviation)


def _exported(network: _StepModule, mean: FloatArray, deviation: FloatArray) -> StepNetwork:
    """The network for measures as they are: the standardization becomes part of the mixture."""
    mix = _array(network.mix.weight)[:, :, 0, 0] / deviation
    return StepNetwork(
        mix=mix.astype(np.float32),
        mix_bias=(_array(network.mix.bias) - mix @ mean).astype(np.float32),
        first=_array(network.first.weight),
        first_bias=_array(network.first.bias),
        second=_array(network.second.weight),
        second_bias=_array(network.second.bias),
        output=_array(network.output.weight)[0, :, 0, 0],
    )


def _array(tensor: torch.Tensor | None) -> FloatArray:
    assert tensor is not None
    return np.ascontiguousarray(tensor.detach().numpy(), np.float32)
