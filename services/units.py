"""The unit of the sizes that tables and records give."""

from __future__ import annotations

KB = 1000
"""Bytes of a kB."""
