"""A camera's packets for replicas, as for detectors."""

from tests.services.detector.conftest import agreed, encode, make_hello, model, workers

__all__ = ["agreed", "encode", "make_hello", "model", "workers"]
