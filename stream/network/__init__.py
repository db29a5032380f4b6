"""The split network. Imports torch; never asyncio."""
