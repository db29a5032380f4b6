"""The tokens of a detector that is attacked."""

from __future__ import annotations

from services.access.tokens import token_hash


def token_table(honest: str, stranger: str, consumer: str, lost: str | None = None) -> str:
    """A token file: of the camera that owns `door`, one for `yard*`, a consumer's, and one that will be revoked."""
    entries = [("honest", honest, "camera", "door"), ("stranger", stranger, "camera", "yard*")]
    entries.append(("consumer", consumer, "consumer", "*"))
    if lost:
        entries.append(("lost", lost, "camera", "yard*"))
    return "".join(
        f'[[token]]\nname = "{name}"\nhash = "{token_hash(token)}"\nroles = ["{role}"]\nstreams = ["{stream}"]\n'
        for name, token, role, stream in entries
    )
