"""Owns the subject "fedctl": a rank that is built and plays rounds as `python -m trainer` does.

`python -m bench.ours '{"work": {...}, "sync": {...}, "rounds": N}'` plays and tests in a process of
its own, and prints its peak memory.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._C._profiler import _EventType
from torch.profiler import profile

from bench.memory import peak_bytes
from bench.work import Work
from trainer.config.load import validate
from trainer.config.schema import Experiment
from trainer.engine.build import build
from trainer.engine.evaluate import evaluate
from trainer.engine.round import RoundResult, run_round


class Ours:
    """One rank with all clients."""

    def __init__(self, experiment: Experiment) -> None:
        torch.set_num_threads(1)
        self.rank = build(experiment, torch.device("cpu"))
        self.number = 0

    def round(self) -> RoundResult:
        self.number += 1
        return run_round(self.rank, self.number)

    def parameters(self) -> Tensor:
        """The agreed model, (P,)."""
        return self.rank.server.anchor

    def accuracy(self) -> float:
        return evaluate(self.rank).accuracy


def experiment(work: Work, sync: dict[str, Any], **more: Any) -> Experiment:
    """`work` as an experiment, IID with each pass in a new order."""
    data = {"name": "digits"} if work.data is None else {"name": "mnist", "path": work.data}
    return validate(
        {
            "seed": work.seed,
            "clients": work.clients,
            "data": data,
            "model": {"name": work.model},
            "optimizer": {"lr": work.lr, "weight_decay": work.weight_decay},
            "schedule": {"batch_size": work.batch_size, "phases": [{"steps": work.steps}]},
            "sync": sync,
            **more,
        }
    )


def main() -> None:
    asked = json.loads(sys.argv[1])
    weigh = asked.get("weigh", False)
    # from the start: it can't account for what was allocated before it looked
    with profile(profile_memory=True) if weigh else nullcontext() as profiler:
        subject = Ours(experiment(Work(**asked["work"]), asked["sync"], **asked.get("more", {})))
        for _ in range(asked["rounds"]):
            result = subject.round()
    said = {"frozen_share": result.labelled / result.places.size}
    if weigh:
        said |= held(subject) | {"peak_tensor_bytes": peak_of_tensors(profiler)}
    else:
        said |= {"accuracy": subject.accuracy(), "peak_rss_bytes": peak_bytes()}
    print(json.dumps(said))


def held(subject: Ours) -> dict[str, int]:
    """What the policy and its clients' memories hold between rounds."""
    rank = subject.rank
    memories = [record.get("policy", {}) for _, record in rank.store.mine()]
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in _tensors([vars(rank.parts.policy), *memories])
    }
    return {"vector_bytes": 4 * len(rank.server.anchor), "held_bytes": sum(storages.values())}


def peak_of_tensors(profiler: Any) -> int:
    """The most that was allocated at a time, temporaries inside operators included."""
    tree = profiler.profiler.kineto_results.experimental_event_tree()
    allocations = (e for e in _leaves(tree) if e.tag == _EventType.Allocation)
    return int(max(event.extra_fields.total_allocated for event in allocations))


def _leaves(events: Any) -> Iterator[Any]:
    for event in events:
        yield event
        yield from _leaves(event.children)


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in a tree of lists, dictionaries and the objects of our packages."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif type(value).__module__.startswith("trainer.exchange"):
        yield from _tensors(vars(value))


if __name__ == "__main__":
    main()
