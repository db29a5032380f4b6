"""The services of tests/services."""

from tests.services.conftest import make_camera, start_detector, video, weights

__all__ = ["make_camera", "start_detector", "video", "weights"]
