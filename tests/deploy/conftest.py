"""The services of tests/services, and the files of deploy/ as data."""

from __future__ import annotations

from pathlib import Path

from tests.services.conftest import make_camera, start_detector, video, weights

__all__ = ["DEPLOY", "ROOT", "make_camera", "start_detector", "video", "weights"]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
