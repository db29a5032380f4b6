"""The file of a recording: bytes and records. No socket, no clock."""
