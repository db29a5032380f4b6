"""Tails in replicas of Ray Serve: a camera's packets go to the one that owns its decoder. See docs/ray.md."""
