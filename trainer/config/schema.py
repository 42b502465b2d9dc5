"""The experiment: the one typed, frozen model of a run that every part reads.

Only rules that concern several sections are here; each section checks its own settings.
"""

import hashlib
import json
import re
from typing import Any, Literal

from pydantic import field_validator, model_validator

from trainer.config.base import MANY, Section, fixed_keys, identity, setting
from trainer.config.codecs import FP32, Codec
from trainer.config.communication import Full, Streaming, Sync
from trainer.config.data import Data
from trainer.config.fit import misfits
from trainer.config.learning import Algorithm, FedAvg, Model
from trainer.config.operation import Checkpoint, Cluster, Evaluation, Metrics
from trainer.config.optimizers import SGD, Optimizer
from trainer.config.parallel import Parallel
from trainer.config.schedule import Schedule, Stragglers

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?")


class Experiment(Section):
    """A complete run: the same file trains on a laptop and on a cluster."""

    name: str = setting(
        "experiment", help="lower-case letters, digits and dashes; at most 53", learned=False
    )
    description: str = setting("", help="purpose of the run, in one line", learned=False)
    seed: int = setting(
        1,
        help="the only source of randomness: weights, partition, sampling, batches",
        ge=0,
        le=2**63 - 1,
    )
    rounds: int = setting(
        60,
        help="rounds of the run; each ends in a synchronisation",
        unit="rounds",
        ge=1,
        le=MANY,
        learned=False,
    )
    clients: int = setting(
        10, help="N, clients in the federation", unit="clients", ge=1, le=1_000_000, fixed=True
    )
    ranks: int = setting(
        1,
        help="W, processes (pods) that train the clients; at most as many as clients",
        unit="ranks",
        ge=1,
        le=10_000,
        learned=False,
    )
    placement: Literal["dealt", "fixed"] = setting(
        "dealt",
        help="which rank trains a client. dealt: each round's clients go to ranks by their work, "
        "longest first, and the state that a client keeps moves with it; every rank holds all "
        "samples. fixed: a client is always on the same rank, for data that must not move",
        learned=False,
    )
    client_memory: int | None = setting(
        None,
        help="memory of each rank for the state that clients keep between rounds; beyond it, the "
        "state of clients that have not trained for longest moves to files in the run folder; "
        "empty: no limit",
        unit="MiB",
        ge=0,
        le=2**30,
        learned=False,
    )
    participation: float = setting(
        1.0, help="share of the clients sampled in each round; at least one is", gt=0, le=1
    )
    data: Data = setting(Data(), help="the samples and their partition")
    model: Model = setting(Model(), help="the network")
    optimizer: Optimizer = setting(SGD(), help="the clients' optimizer", fixed=True)
    algorithm: Algorithm = setting(
        FedAvg(), help="the clients' local steps, and the server's step", fixed=True
    )
    schedule: Schedule = setting(Schedule(), help="local work between synchronisations")
    stragglers: Stragglers = setting(Stragglers(), help="clients that fail a round")
    sync: Sync = setting(Full(), help="which parameters are exchanged", fixed=True)
    codec: Codec = setting(FP32(), help="format of the exchanged values", fixed=True)
    evaluation: Evaluation = setting(Evaluation(), help="evaluation of the model", learned=False)
    divergence: Literal["stop", "warn"] = setting(
        "stop",
        help="what to do if a loss or a model is not finite. stop: end the run as failed, and name "
        "the first client or tensor; warn: log it and continue. Neither saves a checkpoint of such "
        "a round",
        learned=False,
    )
    checkpoint: Checkpoint = setting(Checkpoint(), help="saved state", learned=False)
    metrics: Metrics = setting(Metrics(), help="destinations of the metrics", learned=False)
    parallel: Parallel = setting(
        Parallel(), help="how a client's model is spread over ranks", learned=False
    )
    cluster: Cluster = setting(Cluster(), help="the process group", learned=False)

    @field_validator("name")
    @classmethod
    def _name_fits_kubernetes(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(
                "use lower-case letters, digits and dashes, at most 53, none at the ends"
            )
        return name

    @property
    def replicas(self) -> int:
        """Copies of the model that train clients: ranks, or pipelines of ranks."""
        return self.ranks // self.parallel.pipeline

    @model_validator(mode="after")
    def _ranks_are_whole_pipelines(self) -> "Experiment":
        stages = self.parallel.pipeline
        if self.ranks % stages:
            least = max(1, self.replicas) * stages
            raise ValueError(
                f"ranks: {self.ranks} is no multiple of parallel.pipeline ({stages}), the ranks of "
                f"one pipeline; set ranks to {least} or {least + stages}, or parallel.pipeline to 1"
            )
        return self

    @model_validator(mode="after")
    def _ranks_have_clients(self) -> "Experiment":
        if self.replicas > self.clients:
            stages = self.parallel.pipeline
            what = f"is {self.replicas} pipelines, " if stages > 1 else "is "
            who = "rank" if stages == 1 else "pipeline"
            raise ValueError(
                f"ranks: {self.ranks} {what}more than clients ({self.clients}), and every {who} "
                f"needs a client; set ranks to at most {self.clients * stages}, or raise clients"
            )
        return self

    @model_validator(mode="after")
    def _overlapping_ranks_have_one_client(self) -> "Experiment":
        if isinstance(self.sync, Streaming) and self.sync.overlap and self.replicas != self.clients:
            stages = self.parallel.pipeline
            raise ValueError(
                f"sync.overlap: an exchange is under way while one client trains on its rank, and "
                f"there are {self.sizes()}; set ranks to {self.clients * stages}, "
                "or sync.overlap to 0"
            )
        return self

    @model_validator(mode="after")
    def _the_schedule_is_long_enough(self) -> "Experiment":
        lengths = self.schedule.lengths(self.optimizer.lr)
        most = sum(length or 0 for length in lengths)
        if self.schedule.phases[-1].ends and self.rounds > most:
            raise ValueError(
                f"rounds: {self.rounds} is more than the {most} after which the last phase of "
                f"schedule.phases ends; set rounds to at most {most}, or add a phase"
            )
        return self

    @model_validator(mode="after")
    def _parts_fit_each_other(self) -> "Experiment":
        problem = next(misfits(self), None)
        if problem is not None:
            raise ValueError(problem)
        return self

    def canonical(self) -> str:
        """Return the canonical JSON: every setting, keys sorted, no spaces; `load` restores it."""
        return canonical(self.model_dump(mode="json"))

    def differences(self, other: "Experiment") -> dict[str, tuple[Any, Any]]:
        """Return what makes `other` another experiment: key -> value here, value there.

        Where and how long it runs does not; None stands for a setting that one does not have.
        """
        mine, theirs = identity(self), identity(other)
        keys = {**mine, **theirs}
        values = {key: (mine.get(key), theirs.get(key)) for key in keys}
        return {key: (here, there) for key, (here, there) in values.items() if here != there}

    def unfit(self, other: "Experiment") -> list[str]:
        """Return the differences with which the saved state of this experiment does not fit."""
        fixed = fixed_keys(self) | fixed_keys(other)
        return [key for key in self.differences(other) if key in fixed]

    def sizes(self) -> str:
        """Return how many clients train on how many ranks, or pipelines of ranks, in words."""
        stages = self.parallel.pipeline
        places = _counted(self.ranks, "rank")
        if stages > 1:
            places = f"{_counted(self.replicas, 'pipeline')} of {stages} ranks"
        return f"{_counted(self.clients, 'client')} on {places}"

    def digest(self) -> str:
        """Return twelve hexadecimal digits that identify the settings, whatever their source."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:12]


def covers(name: str, key: str) -> bool:
    """Return whether a change of the setting `key` is allowed by `--allow-changed name`.

    It is if `name` is its key, or that of a section above it: but `data` allows other samples, and
    no other setting of what is done with them.
    """
    return key == name or (name != "data" and key.startswith(f"{name}."))


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
