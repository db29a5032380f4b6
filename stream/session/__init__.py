"""The session between camera and detector: bytes and times in, events and texts out. No socket, no clock."""
