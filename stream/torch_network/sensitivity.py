"""How much detections change with the tensors that cross the split: random samples of their Fisher information.

A change dt of those tensors moves the outputs l of the detection head by J dt. It is taken to cost the sum of
(w J dt)^2 over all outputs, so that the metric of the tensors is F = J' diag(w^2) J: far too large to write down.
But with random signs e of +1 and -1, independent for every output, g = J' (w e) has E[g g'] = F, so one pass back
through the network gives one sample of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from codec.feature.calibration import CalibrationSample
from codec.feature.profile import Profile, grouped, stack
from codec.feature.step_map import block_energy, pack_step_map
from codec.layout import FloatArray, Layout
from stream.network.cut import halves, live_set
from stream.network.graph import INPUT
from stream.torch_network.anchor_free_head import AnchorFreeDetect
from stream.torch_network.anchor_head import AnchorDetect
from stream.torch_network.graph import ModuleNode, run
from stream.torch_network.model import Model
from stream.torch_network.split import picture_tensor

BOX_WEIGHT = 4.0
"""What a box that is off by its own size counts, against a probability that is off by one standard deviation."""

MIN_EXTENT = 0.3  # cells: smaller boxes count as so wide, so that the tiniest do not drown all others
TYPICAL_ANCHOR = 3.0  # cells: the side that stands for every anchor's

Weighted: TypeAlias = tuple[
    torch.Tensor, torch.Tensor
]  # outputs of the head, and the weight w of each of them


def fisher_samples(
    model: Model, split: str, image: NDArray[np.uint8], draws: int, rng: np.random.Generator
) -> CalibrationSample:
    """What crosses the split for one picture, and as many Fisher samples of it as there are draws.

    `image` is a canvas, uint8 (H, W, 3), BGR. The model is left as it is.
    Raises UnknownSplitPoint.
    """
    head, tail = halves(model.graph, split)
    with torch.no_grad():
        crossing = run(head, {INPUT: picture_tensor(image, model.device)}, live_set(model.graph, split))
    gradients = _gradients(tail, crossing, draws, rng)
    return CalibrationSample({name: _array(tensor) for name, tensor in crossing.items()}, gradients)


class StepMapper:
    """Measures step maps of frames whose tensors crossed at a split point: a pass forth and one back for each."""

    def __init__(self, model: Model, split: str, layout: Layout, profile: Profile, seed: int = 0) -> None:
        """Raises UnknownSplitPoint, or ProfileMismatch where the profile is for other tensors."""
        _, self._tail = halves(model.graph, split)
        profile.check(layout)
        self._device, self._rng = model.device, np.random.default_rng(seed)
        self._groups = [
            (specs, group.inverse) for specs, group in zip(grouped(layout), profile.groups, strict=True)
        ]

    def __call__(self, tensors: Mapping[str, FloatArray]) -> bytes:
        """The map of a frame, from its tensors float32 (C, h, w). Raises BadStepMap where it is not finite."""
        crossing = {name: torch.from_numpy(tensor)[None].to(self._device) for name, tensor in tensors.items()}
        (gradient,) = _gradients(self._tail, crossing, 1, self._rng)
        return pack_step_map(
            [block_energy(inverse, stack(gradient, specs)) for specs, inverse in self._groups]
        )


def _gradients(
    tail: Sequence[ModuleNode], crossing: Mapping[str, torch.Tensor], draws: int, rng: np.random.Generator
) -> list[dict[str, FloatArray]]:
    *body, detect = tail
    with torch.enable_grad():
        leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in crossing.items()}
        features = list(run(body, leaves, detect.inputs).values())
        outputs = weighted_outputs(detect.module, features)
    values, weights = zip(*outputs, strict=True)
    gradients = []
    for draw in range(draws):
        signed = [weight * _signs(weight, rng) for weight in weights]
        sample = torch.autograd.grad(values, list(leaves.values()), signed, retain_graph=draw < draws - 1)
        gradients.append({name: _array(gradient) for name, gradient in zip(leaves, sample, strict=True)})
    return gradients


def weighted_outputs(head: torch.nn.Module, features: list[torch.Tensor]) -> list[Weighted]:
    """The outputs of a detection head that matter, and their weights, which are constants to autograd."""
    match head:
        case AnchorDetect():
            return [(level, _anchor_weights(level.detach())) for level in head.logits(features)]
        case AnchorFreeDetect():
            distances, scores = head.raw(features)
            box, classes = _anchor_free_weights(distances.detach(), scores.detach())
            return [(distances, box), (scores, classes)]
    raise AssertionError(f"no detection head of ours: {type(head).__name__}")


def _anchor_weights(logits: torch.Tensor) -> torch.Tensor:
    """Weights of logits (B, anchors, 5 + classes, h, w), which have the same shape.

    p is the sigmoid of a logit l. Objectness and classes have the Fisher information of a Bernoulli variable's logit,
    p (1 - p), a class as far as there is an object. A box counts as far as it is confident, and by its change
    relative to its size: a width of (2p)^2 anchors has d log(width)/dl = 2 (1 - p), and a center at 2p cells moves
    by 2p (1 - p) cells.
    """
    p = logits.sigmoid()
    xy, wh, objectness, classes = p[:, :, :2], p[:, :, 2:4], p[:, :, 4:5], p[:, :, 5:]
    box = BOX_WEIGHT * (objectness * classes.amax(2, keepdim=True)).sqrt()
    extent = (TYPICAL_ANCHOR * (2 * wh) ** 2).clamp(min=MIN_EXTENT)
    return torch.cat(
        (
            box * 2 * xy * (1 - xy) / extent,
            box * 2 * (1 - wh),
            (objectness * (1 - objectness)).sqrt(),
            (objectness * classes * (1 - classes)).sqrt(),
        ),
        2,
    )


def _anchor_free_weights(distances: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of distances (B, 4, N) in cells and of class logits (B, classes, N), which have the same shapes.

    As `_anchor_weights`, but there is no objectness, and a distance d = sum i softmax(l)_i is itself the output: a
    change of its bins' logits moves it by sum p_i (i - d) dl_i, and the box by that much relative to its width or
    height. A sign is drawn for each distance, not for each bin, since only their mean matters.
    """
    p = scores.sigmoid()
    box = BOX_WEIGHT * p.amax(1, keepdim=True).sqrt()
    extent = (distances[:, :2] + distances[:, 2:]).clamp(min=MIN_EXTENT)
    return box / extent.repeat(1, 2, 1), (p * (1 - p)).sqrt()


def _signs(like: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """+1 or -1 with equal chances, drawn on the CPU so that every device gets the same."""
    bits = rng.integers(0, 2, tuple(like.shape), np.int8)
    return torch.from_numpy(bits).to(like) * 2 - 1


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor[0].detach().cpu().contiguous().numpy()
    return array
