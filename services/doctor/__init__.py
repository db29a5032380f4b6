"""Checks a machine that is to be a camera or a detector, and says what to change."""
