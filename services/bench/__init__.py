"""Measures the live services on this machine."""
