"""The process group: which rank this is, on which device, and how it joins the others.

No other module reads the variables by which torchrun, a training operator or a pod numbers ranks.
Collectives are in trainer/exchange/group.py.
"""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.config.operation import Cluster
from trainer.engine.allocator import keep_freed_memory
from trainer.engine.diagnosis import FULL
from trainer.engine.status import log
from trainer.exchange.group import first_sentence

DEFAULT_PORT = 29500  # torch's own, and Trainer v2's
LONGEST_PAUSE_SECONDS = 5.0  # between two attempts to reach rank 0
CONNECT_SECONDS = 5.0
LEAST_SECONDS = 1.0  # for a rank that reaches rank 0 at the last moment
LONGEST_STEP_SECONDS = 0.1  # between two looks at which ranks have come
TELL_SECONDS = 5.0  # first line about ranks that are missing; then after twice that, and so on
MOST_NAMED = 8  # of them


@dataclass(frozen=True)
class World:
    """This process among the ranks, and rank 0's address; `source`: the variable with the rank.

    RANK (fedctl run, torchrun, PyTorchJob) comes before PET_NODE_RANK (Trainer v2), because
    torchrun sets RANK for each process of a node, and PET_NODE_RANK counts nodes; then
    JOB_COMPLETION_INDEX (a Job). store: the file through which the ranks of one machine meet
    (FEDCTL_STORE); without it they meet at rank 0's address.
    """

    rank: int = 0
    size: int = 1
    address: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    source: str = ""
    store: str | None = None

    @property
    def meeting(self) -> str:
        """Where the ranks meet, for messages."""
        return self.store or f"{self.address}:{self.port}"


def world(environment: Mapping[str, str] = os.environ) -> World:
    """Read this rank, the number of ranks and rank 0's address from the environment."""
    source = _first(environment, "RANK", "PET_NODE_RANK", "JOB_COMPLETION_INDEX")
    rank = _number(environment, source, 0) if source else 0
    size = _size(environment)
    if rank >= size:
        raise ConfigError(
            source or "RANK",
            f"is {rank}, but the ranks of a world of {size} count from 0 to {size - 1}; set "
            "WORLD_SIZE (or PET_NNODES) to the number of ranks",
        )
    address = _first(environment, "MASTER_ADDR", "PET_MASTER_ADDR")
    port = _first(environment, "MASTER_PORT", "PET_MASTER_PORT")
    return World(
        rank=rank,
        size=size,
        address=environment[address] if address else World.address,
        port=_number(environment, port, 1) if port else DEFAULT_PORT,
        source=source or "",
        store=environment.get("FEDCTL_STORE"),
    )


def _size(environment: Mapping[str, str]) -> int:
    if "WORLD_SIZE" in environment:
        return _number(environment, "WORLD_SIZE", 1)
    if "PET_NNODES" not in environment:
        return 1
    processes = environment.get("PET_NPROC_PER_NODE", "1")
    if processes not in ("1", "auto", "gpu", "cpu"):
        raise ConfigError(
            "PET_NPROC_PER_NODE", f"is {processes}, but a pod holds one rank; set it to 1"
        )
    return _number(environment, "PET_NNODES", 1)


def _first(environment: Mapping[str, str], *names: str) -> str | None:
    return next((name for name in names if name in environment), None)


def _number(environment: Mapping[str, str], name: str, least: int) -> int:
    text = environment[name]
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise ConfigError(name, f"{text!r} is not a whole number from {least}")
    return int(text)


def device(cluster: Cluster) -> torch.device:
    """Return this rank's GPU if there is one and the backend allows it, else the CPU."""
    if cluster.backend == "gloo" or not torch.cuda.is_available():
        if cluster.backend == "nccl":
            raise ConfigError("cluster.backend", "nccl needs a GPU; set cluster.backend=gloo")
        if cluster.threads:
            torch.set_num_threads(cluster.threads)
        keep_freed_memory()
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        raise ConfigError(
            "ranks",
            f"local rank {local} has no GPU of its own ({torch.cuda.device_count()} here); use "
            "fewer ranks, or set cluster.backend=gloo to train on the CPU",
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def join(cluster: Cluster, ranks: int, device: torch.device, patience: float) -> None:
    """Join the other ranks; a single one needs no group.

    patience: seconds until all ranks must be here, from now; it has nothing to do with the time
    limit of a collective.
    """
    until = time.monotonic() + patience
    here = world()
    if here.size != ranks:
        raise ConfigError(
            "ranks",
            f"{ranks} in the experiment, but {here.size} processes were started; start one for "
            "each rank",
        )
    if here.size == 1:
        return
    try:
        store = _meet(here, until)
        _wait_for_all(store, here, until, patience)
        store.set_timeout(timedelta(seconds=cluster.timeout))
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=here.rank,
            world_size=here.size,
            timeout=timedelta(seconds=cluster.timeout),
            device_id=device if device.type == "cuda" else None,
        )
    except (dist.DistError, RuntimeError, ValueError) as error:
        if isinstance(error, EnvironmentFault | ConfigError):
            raise
        for code in FULL:
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code), here.store) from error
        raise EnvironmentFault(
            f"cannot join the process group at {here.meeting}: {first_sentence(error)}"
        ) from error


def _meet(here: World, until: float) -> Any:
    """Return the store through which ranks find each other: a file, or rank 0's or torchrun's."""
    if here.store:
        return dist.FileStore(here.store, here.size)  # type: ignore[attr-defined]  # it is
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun has found it
        # torch reads only these four
        os.environ |= {
            "RANK": str(here.rank),
            "WORLD_SIZE": str(here.size),
            "MASTER_ADDR": here.address,
            "MASTER_PORT": str(here.port),
        }
        store, _, _ = next(rendezvous("env://", timeout=_left(until)))
        return store
    find(here, _left(until).total_seconds())
    # Rank 0's would wait for the others in here, and could not say which of them is missing.
    return dist.TCPStore(  # type: ignore[attr-defined]  # it is
        here.address, here.port, here.size, here.rank == 0, _left(until), wait_for_workers=False
    )


def _left(until: float) -> timedelta:
    """Return the time left, at least enough for one attempt."""
    return timedelta(seconds=max(LEAST_SECONDS, until - time.monotonic()))


def _wait_for_all(store: Any, here: World, until: float, patience: float) -> None:
    """Wait until every rank has come; say which is missing, since nobody else knows.

    until: when they must be here, which is `patience` after this rank has started to look.
    """
    start, told, pause = time.monotonic(), TELL_SECONDS, 0.01
    store.set(f"here/{here.rank}", "")
    missing = list(range(here.size))
    while missing := [rank for rank in missing if not store.check([f"here/{rank}"])]:
        waited = time.monotonic() - start
        who = "rank " + ", ".join(map(str, missing[:MOST_NAMED]))
        who += f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        if time.monotonic() > until:
            raise EnvironmentFault(
                f"{who} did not start within {patience:g} s; look at its log and at its pod"
            )
        if waited > told:
            log.info("waiting for %s since %.0f s", who, waited)
            told *= 2
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_STEP_SECONDS)


def find(here: World, patience: float) -> None:
    """Wait until rank 0's name resolves and, on the other ranks, until it accepts connections.

    Pods start in any order, and a Service has no name in DNS before its pod runs.
    """
    start, pause = time.monotonic(), 0.1
    while problem := _unreachable(here):
        waited = time.monotonic() - start
        if waited > patience:
            raise EnvironmentFault(
                f"cannot reach rank 0 at {here.address}:{here.port} after {waited:.0f} s: "
                f"{problem}; check that rank 0 is running and that this pod may connect to it"
            )
        time.sleep(min(pause, max(0.0, patience - waited)))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _unreachable(here: World) -> str | None:
    """Return why this rank cannot reach rank 0 at the moment, or None if it can."""
    try:
        addresses = socket.getaddrinfo(here.address, here.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return f"the name does not resolve ({error.strerror})"
    if here.rank == 0:  # it is the rank that others connect to
        return None
    problem = "no address"
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.settimeout(CONNECT_SECONDS)
                probe.connect(address)
                return None
        except OSError as error:
            problem = (error.strerror or str(error)).lower()
    return problem


def leave() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
