"""All checks of a cluster, in order, and the result of each.

If a permission is missing, a check is `unknown` and names the permission.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from fedctl.cluster.api import errors
from fedctl.cluster.doctor import access, operators, queues, room
from fedctl.cluster.doctor.finding import FAIL, UNKNOWN, Finding
from fedctl.errors import FedctlError, RunError

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

Check = Callable[["Cluster"], Iterator[Finding]]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("server", access.server),
    ("namespace", access.namespace),
    ("helm", access.helm),
    ("rights", access.rights),
    ("backends", operators.backends),
    ("fields", operators.fields),
    ("operators", operators.alive),
    ("kueue", queues.kueue),
    ("integrations", queues.integrations),
    ("gangs", queues.gangs),
    ("monitoring", queues.monitoring),
    ("quota", room.quota),
    ("gpus", room.gpus),
    ("storage", room.storage),
)


def examine(cluster: "Cluster", checks: Sequence[tuple[str, Check]] = CHECKS) -> Iterator[Finding]:
    """Run these checks one after the other; stop if the server cannot be reached."""
    for name, check in checks:
        try:
            for found in check(cluster):
                yield found.of(name)
        except errors.Forbidden as error:
            yield Finding(UNKNOWN, f"no permission: {error}").of(name)
        except errors.Unreachable as error:
            yield Finding(FAIL, str(error)).of(name)
            return
        except FedctlError as error:
            yield Finding(UNKNOWN, str(error)).of(name)


def verdict(found: list[Finding]) -> RunError | None:
    """Return the error to end with if a check fails."""
    failing = [one for one in found if one.level == FAIL]
    if not failing:
        return None
    return RunError(f"{len(failing)} of {len(found)} checks fail, the first: {failing[0].check}")
