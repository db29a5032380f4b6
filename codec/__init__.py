"""Feature codecs: float32 arrays in, bytes out. Imports numpy, numba and the standard library only."""
