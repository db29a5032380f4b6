"""The session's way over a network. Imports asyncio and aiohttp; never torch."""
