"""The split network, the session and the frame sources. Model code (torch) and socket code (asyncio) never meet."""
