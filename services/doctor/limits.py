"""How many files a service may open at a time: each of its connections is one."""

from __future__ import annotations

import resource

from services.doctor.finding import Finding, doubtful, fine
from services.listening import permitted_connections


def look_at_limit(wanted: int, lower: str) -> Finding:
    """Whether a service may have so many connections; `lower` says which settings want fewer.

    Raises SettingsError where hardly any is left, and the service would not start.
    """
    permitted = permitted_connections(wanted)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = "any number of" if hard == resource.RLIM_INFINITY else str(hard)
    facts = {
        "wanted": wanted,
        "permitted": permitted,
        "limit": None if soft == resource.RLIM_INFINITY else soft,
    }
    measured = f"{most} files may be open, {wanted} connections are wanted"
    if permitted < wanted:
        return doubtful(
            f"{measured}, and {permitted} are left",
            f"ulimit -n {wanted + 64}, or LimitNOFILE={wanted + 64} of systemd{lower}",
            **facts,
        )
    return fine(measured, **facts)
