"""What a detector is told of Ray. Light: nothing of Ray is imported, so that `--help` is there at once."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from services.command_settings import CommandSettings
from services.settings import own_name
from stream.session.messages import StreamName

MAX_REPLICAS = 1024
_RAY_FLAGS = ("ray_address", "ray_name", "ray_replicas", "ray_gpus", "ray_private_network")


class Replicas(NamedTuple):
    """How many there are at least, and at most."""

    least: int
    most: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Those of `2`, or `1:4`. Raises ValueError."""
        if not re.fullmatch(r"[0-9]{1,4}(:[0-9]{1,4})?", text):
            raise ValueError("must be a number of replicas such as 2, or a range such as 1:4")
        least, _, most = text.partition(":")
        replicas = cls(int(least), int(most or least))
        if not 1 <= replicas.least <= replicas.most <= MAX_REPLICAS:
            raise ValueError(f"must be 1 to {MAX_REPLICAS} replicas, the smaller number first")
        return replicas


def replicas_text(text: str) -> str:
    Replicas.parse(text)
    return text


def cluster_address(address: str) -> str:
    if address != "auto" and not re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}", address):
        raise ValueError(
            "must be the cluster's HOST:PORT, or auto for the one that this machine is a node of; ray:// does not do"
        )
    return address


def gpu_share(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("must be a share of one GPU, or a whole number of them")
    return gpus


class RaySettings(CommandSettings):
    """What a detector is told that has its tails in Ray Serve."""

    tail: Literal["local", "ray"] = Field(
        "local",
        description="where packets are decoded and the network is finished: local, in this process, or in replicas of "
        "Ray Serve, which takes the extra ray",
    )
    ray_address: Annotated[str, AfterValidator(cluster_address)] | None = Field(
        None,
        title="HOST:PORT",
        description="Ray cluster to run replicas in, of which this machine is a node; auto: the one it is a node of "
        "(default: a Ray of this detector's own, on this machine alone)",
    )
    ray_name: StreamName = Field(
        default_factory=own_name,
        description="name of this detector's application in the cluster, of its own: another of that name ends "
        "(default: host name)",
    )
    ray_replicas: Annotated[str, AfterValidator(replicas_text)] = Field(
        "1",
        title="MIN[:MAX]",
        description="replicas that decode and finish the network; a range lets Ray start and stop them by load",
    )
    ray_gpus: Annotated[float, Field(ge=0, le=64), AfterValidator(gpu_share)] = Field(
        0.0, description="GPUs that each replica has to itself, or what share of one: 0.25 lets four share it"
    )
    ray_private_network: bool = Field(
        False,
        description="the network keeps strangers out of Ray, which has ports on all addresses of its machines",
    )

    @property
    def replicas(self) -> Replicas:
        """How many replicas there are."""
        return Replicas.parse(self.ray_replicas)

    @model_validator(mode="after")
    def _check_ray(self) -> Self:
        if self.tail == "local":
            for name in _RAY_FLAGS:
                if name in self.model_fields_set and getattr(self, name) != _default(name):
                    raise ValueError(f"--{name.replace('_', '-')}: is of no use without --tail ray")
        elif not self.ray_private_network:
            raise ValueError(
                "--tail: Ray has a port on all addresses of this machine for each replica, whatever else of it is "
                "bound to loopback: say --ray-private-network where the network keeps strangers out (docs/ray.md)"
            )
        return self

    def check_machine(self) -> None:
        from services.extras import require

        super().check_machine()
        if self.tail == "ray":
            require("ray", "--tail ray")


def _default(name: str) -> object:
    return RaySettings.model_fields[name].default
