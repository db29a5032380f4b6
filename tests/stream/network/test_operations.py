"""Shapes and work are those of torch's own layers, of which they are the description."""

from __future__ import annotations

import pytest
import torch
from ultralytics.nn import modules

from stream.network.operations import SPPF, Bottleneck, Concat, Conv, Detect, Join, Upsample
from stream.torch_network.graph import ModuleNode

SHAPE = (8, 12, 20)


def conv(inputs: int, outputs: int, kernel: int = 1, **more: int) -> Conv:
    return Conv("model.0", inputs, outputs, kernel, padding=kernel // 2, **more)


@pytest.mark.parametrize(
    ("operation", "module", "inputs"),
    [
        (conv(8, 16), modules.Conv(8, 16), [SHAPE]),
        (conv(8, 16, 3, stride=2), modules.Conv(8, 16, 3, 2), [SHAPE]),
        (conv(8, 16, 3, groups=4), modules.Conv(8, 16, 3, 1, None, 4), [SHAPE]),
        (
            Bottleneck(conv(8, 8), conv(8, 8, 3, groups=2), shortcut=True),
            modules.Bottleneck(8, 8, True, 2, k=((1, 1), (3, 3)), e=1.0),
            [SHAPE],
        ),
        (SPPF(conv(8, 4), 5, conv(16, 24)), modules.SPPF(8, 24, 5), [SHAPE]),
        (Upsample(), torch.nn.Upsample(scale_factor=2), [SHAPE]),
        (Concat(), modules.Concat(1), [SHAPE, (4, 12, 20)]),
        (
            Join(conv(12, 6)),
            torch.nn.Sequential(modules.Concat(1), modules.Conv(12, 6)),
            [SHAPE, (4, 12, 20)],
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_shape_and_work(operation, module, inputs):
    node = ModuleNode("0", module, ("input",), takes_list=len(inputs) > 1)
    assert operation.shape(inputs) == node.shape(inputs)
    assert operation.flops(inputs) == node.flops(inputs)


@pytest.mark.parametrize(
    ("operation", "inputs"), [(conv(8, 16, 3), [(8, 0, 5)]), (Concat(), [SHAPE, (4, 12, 19)])]
)
def test_what_cannot_be_is_refused(operation, inputs):
    with pytest.raises(ValueError, match=r"\d+x\d+"):
        operation.shape(inputs)


def test_a_detection_head_counts_every_row():
    rows = (((conv(8, 4, 3), conv(4, 64)), (conv(8, 5),)),) * 2
    detect = Detect("yolov5u", "model.24", 5, 0, rows)
    shapes = [SHAPE, (8, 6, 10)]
    assert detect.shape(shapes) == (69, 12 * 20 + 6 * 10)
    assert detect.flops(shapes) == sum(2 * h * w * (8 * 4 * 9 + 4 * 64 + 8 * 5) for _, h, w in shapes)
