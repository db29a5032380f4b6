"""Fits the feature codec to a network."""
