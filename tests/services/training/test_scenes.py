"""What the demo network finds on its scenes is counted as a detector would show it."""

from __future__ import annotations

import inspect

from services.detector.settings import DetectorSettings
from stream.torch_network.nms import detect


def test_scenes_are_seen_with_the_detectors_own_thresholds() -> None:
    """`SplitDetector` leaves them to `detect`: training must not import a service."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(detect).parameters.items()}
    settings = DetectorSettings.load({})
    assert (defaults["conf"], defaults["iou"]) == (settings.confidence, settings.iou)
