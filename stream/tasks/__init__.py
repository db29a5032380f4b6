"""What asyncio tasks and worker threads share."""
