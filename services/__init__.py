"""The programs: they join the codec, the split network and the session."""

import stream  # noqa: F401 - before anything here imports ultralytics
