"""Owns the process group: which rank this is, on which device, and how it joins the others."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist

from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.config.operation import Cluster
from trainer.sync.comm import first_sentence


def world() -> tuple[int, int]:
    """This process's rank and the number of ranks, from torchrun's or the pod's environment."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def device(cluster: Cluster) -> torch.device:
    """The GPU of this rank where there is one and the backend allows, else the CPU."""
    if cluster.backend == "gloo" or not torch.cuda.is_available():
        if cluster.backend == "nccl":
            raise ConfigError("cluster.backend", "nccl needs a GPU; set cluster.backend=gloo")
        if cluster.threads:
            torch.set_num_threads(cluster.threads)
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


def join(cluster: Cluster, ranks: int, device: torch.device) -> None:
    """Meet the other ranks; a single one needs no group."""
    _, size = world()
    if size != ranks:
        raise ConfigError("ranks", f"{ranks} in the experiment, but {size} processes were started")
    if size > 1:
        try:
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                timeout=timedelta(seconds=cluster.timeout),
                device_id=device if device.type == "cuda" else None,
            )
        except (dist.DistError, RuntimeError, ValueError) as error:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise EnvironmentFault(
                f"can't meet the other ranks at {where}: {first_sentence(error)}"
            ) from error


def leave() -> None:
    """Part from the other ranks, if there is a group."""
    if dist.is_initialized():
        dist.destroy_process_group()
