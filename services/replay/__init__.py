"""Sends a recording's packets to a detector, and says what became of each."""
