"""Owns the examination of a cluster: which checks there are, in which order, and how each ends.

A check asks and judges; what it may not ask is `unknown` and says which right is missing.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from fedctl.cluster import doctor_access, doctor_operators, doctor_queues, doctor_room, errors
from fedctl.cluster.finding import FAIL, UNKNOWN, Finding
from fedctl.errors import FedctlError, RunError

if TYPE_CHECKING:
    from fedctl.cluster.client import Cluster

Check = Callable[["Cluster"], Iterator[Finding]]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("server", doctor_access.server),
    ("namespace", doctor_access.namespace),
    ("helm", doctor_access.helm),
    ("rights", doctor_access.rights),
    ("backends", doctor_operators.backends),
    ("fields", doctor_operators.fields),
    ("operators", doctor_operators.alive),
    ("kueue", doctor_queues.kueue),
    ("integrations", doctor_queues.integrations),
    ("gangs", doctor_queues.gangs),
    ("monitoring", doctor_queues.monitoring),
    ("quota", doctor_room.quota),
    ("gpus", doctor_room.gpus),
    ("storage", doctor_room.storage),
)


def examine(cluster: "Cluster", checks: Sequence[tuple[str, Check]] = CHECKS) -> Iterator[Finding]:
    """These checks, one after the other; a server that cannot be reached is asked no more."""
    for name, check in checks:
        try:
            for found in check(cluster):
                yield found.of(name)
        except errors.Forbidden as error:
            yield Finding(UNKNOWN, f"needs a right: {error}").of(name)
        except errors.Unreachable as error:
            yield Finding(FAIL, str(error)).of(name)
            return
        except FedctlError as error:
            yield Finding(UNKNOWN, str(error)).of(name)


def verdict(found: list[Finding]) -> RunError | None:
    """The error to end with, where something fails."""
    failing = [one for one in found if one.level == FAIL]
    if not failing:
        return None
    return RunError(f"{len(failing)} of {len(found)} checks fail, the first: {failing[0].check}")
