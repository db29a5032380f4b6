"""Where frames come from. Imports asyncio and OpenCV; never torch."""
