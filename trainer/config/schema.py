"""The experiment: the one typed, frozen model of a run that every part reads."""

import hashlib
import json
import re
from typing import Any, Literal

from pydantic import field_validator, model_validator

from trainer.config.base import Section, setting
from trainer.config.communication import FP32, Codec, Full, Sync
from trainer.config.data import Data
from trainer.config.fit import misfits
from trainer.config.learning import SGD, Algorithm, FedAvg, Model
from trainer.config.operation import Checkpoint, Cluster, Evaluation, Metrics
from trainer.config.schedule import Schedule, Stragglers

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?")


class Experiment(Section):
    """One run, complete: the same file trains on a laptop and on a cluster."""

    name: str = setting("experiment", help="lower-case letters, digits and dashes; at most 53")
    description: str = setting("", help="one line that says what the run shows")
    seed: int = setting(
        1, help="the only source of randomness: weights, partition, sampling, batches", ge=0
    )
    rounds: int = setting(60, help="synchronisations", unit="rounds", ge=1)
    clients: int = setting(10, help="N, clients in the federation", unit="clients", ge=1)
    ranks: int = setting(
        1,
        help="W, processes (pods) that the clients are spread over; 1 to clients",
        unit="ranks",
        ge=1,
    )
    placement: Literal["dealt", "fixed"] = setting(
        "dealt",
        help="who trains a client. dealt: each round's clients go to ranks by their work, longest "
        "first, and what a client keeps moves with it; every rank holds all samples. fixed: each "
        "client always on the same rank, for data that must not move",
    )
    client_memory: int | None = setting(
        None,
        help="memory of a rank for what clients keep between rounds; beyond it, those that rested "
        "longest wait in memory-mapped files of the run folder; empty: all in memory",
        unit="MiB",
        ge=0,
    )
    participation: float = setting(
        1.0, help="share of the clients sampled in each round; at least one is", gt=0, le=1
    )
    data: Data = setting(Data(), help="the samples and their partition")
    model: Model = setting(Model(), help="the network")
    optimizer: SGD = setting(SGD(), help="the clients' optimizer")
    algorithm: Algorithm = setting(FedAvg(), help="what clients do and what their means do")
    schedule: Schedule = setting(Schedule(), help="local work between synchronisations")
    stragglers: Stragglers = setting(Stragglers(), help="clients that fail a round")
    sync: Sync = setting(Full(), help="which parameters are exchanged")
    codec: Codec = setting(FP32(), help="how values travel")
    evaluation: Evaluation = setting(Evaluation(), help="tests of the agreed model")
    checkpoint: Checkpoint = setting(Checkpoint(), help="saved state")
    metrics: Metrics = setting(Metrics(), help="what is exported")
    cluster: Cluster = setting(Cluster(), help="processes")

    @field_validator("name")
    @classmethod
    def _name_fits_kubernetes(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(
                "use lower-case letters, digits and dashes, at most 53, none at the ends"
            )
        return name

    @model_validator(mode="after")
    def _ranks_have_clients(self) -> "Experiment":
        if self.ranks > self.clients:
            raise ValueError(
                f"ranks: {self.ranks} is more than clients ({self.clients}); every rank needs a "
                f"client: set ranks to at most {self.clients}, or raise clients"
            )
        return self

    @model_validator(mode="after")
    def _parts_fit_each_other(self) -> "Experiment":
        problem = next(misfits(self), None)
        if problem is not None:
            raise ValueError(problem)
        return self

    def canonical(self) -> str:
        """The one JSON form: every setting, keys sorted, no spaces; `load` reads it back equal."""
        return canonical(self.model_dump(mode="json"))

    def digest(self) -> str:
        """Twelve hexadecimal digits that name these settings, whatever file they came from."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:12]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
