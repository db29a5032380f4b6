"""Trains the embedded demo network; not installed with the package, run as `python -m services.training`."""
