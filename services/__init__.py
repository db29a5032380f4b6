"""The programs: they join the codec, the split network and the session."""
