"""The small commands, and the two services as programs."""
