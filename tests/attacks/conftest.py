"""The detector and cameras of the services' own tests."""

from tests.services.conftest import make_camera, start_detector, video, weights
from tests.services.detector.conftest import agreed, make_hello, model

__all__ = ["agreed", "make_camera", "make_hello", "model", "start_detector", "video", "weights"]
