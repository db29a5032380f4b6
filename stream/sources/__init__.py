"""Where frames come from. Imports asyncio, PyAV and OpenCV; never torch."""
