"""Owns the way from an experiment to objects: the explicit tables from names to classes.

The only place that asks which name was chosen.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from trainer.algorithms.base import Algorithm
from trainer.algorithms.fedavg import FedAvg
from trainer.algorithms.fedga import FedGA
from trainer.algorithms.fedprox import FedProx
from trainer.algorithms.fedsgd import FedSGD
from trainer.algorithms.scaffold import scaffold
from trainer.config.learning import SGD
from trainer.config.schema import Experiment
from trainer.data.batches import Normalise
from trainer.data.load import Dataset, load
from trainer.engine.clients import Clients
from trainer.engine.run import Clock, Run
from trainer.flat import Flat
from trainer.models.cnn import DigitsCNN, LeNet, MnistCNN
from trainer.models.resnet import ResNet18
from trainer.models.vgg import VGG11
from trainer.parallel.single import SingleDevice
from trainer.sync.apf import APF
from trainer.sync.codec import BFloat16, Codec, Float32
from trainer.sync.comm import Comm
from trainer.sync.exchange import Exchange
from trainer.sync.gwpf import GWPF
from trainer.sync.gwpf_released import GWPFReleased
from trainer.sync.policy import Policy
from trainer.sync.tally import Tally

DOWNLOAD = timedelta(hours=6)  # that rank 0 may take to load the data, and download it first

MODELS: dict[str, Callable[..., nn.Module]] = {
    "digits-cnn": DigitsCNN,
    "lenet": LeNet,
    "mnist-cnn": MnistCNN,
    "resnet18": ResNet18,
    "vgg11": VGG11,
}
ALGORITHMS: dict[str, Callable[[Any, SGD, Tensor], Algorithm]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fedga": FedGA,
    "scaffold": scaffold,
    "fedsgd": FedSGD,
}
POLICIES: dict[str, Callable[[Any, int, torch.device], Policy]] = {
    "full": Policy,
    "apf": APF,
    "gwpf": GWPF,
    "gwpf-released": GWPFReleased,
}
CODECS: dict[str, Callable[[Any], Codec]] = {"fp32": Float32, "bf16": BFloat16}


def build(experiment: Experiment, device: torch.device) -> Run:
    """Load the data, make the model, assemble a rank; every rank starts from the same weights."""
    tally = Tally()
    comm = Comm(tally, device)
    data = _load_in_turn(experiment, comm)
    torch.manual_seed(experiment.seed)
    model = MODELS[experiment.model.name](classes=data.classes, in_shape=data.shape)
    flat = Flat(model.to(device).train())
    anchor = flat.values.detach().clone()
    sgd = experiment.optimizer
    return Run(
        experiment=experiment,
        flat=flat,
        anchor=anchor,
        buffers=flat.buffers.clone(),
        gradient=SingleDevice(
            flat,
            Normalise(data.mean, data.std, data.scale, device),
            bf16=experiment.model.precision == "bf16",
        ),
        augment=data.augment,
        optimizer=torch.optim.SGD(
            [flat.values],
            lr=sgd.lr,
            momentum=sgd.momentum,
            nesterov=sgd.nesterov,
            weight_decay=sgd.weight_decay,
        ),
        algorithm=ALGORITHMS[experiment.algorithm.name](experiment.algorithm, sgd, anchor),
        policy=POLICIES[experiment.sync.name](experiment.sync, flat.size, device),
        codec=CODECS[experiment.codec.name](experiment.codec),
        comm=comm,
        exchange=Exchange(
            flat.size, flat.buffers.numel() * (experiment.model.buffers == "mean"), device
        ),
        survey=Exchange(flat.size, 0, device),
        clients=Clients(experiment, data, comm.rank, comm.size, device),
        x_test=data.x_test[comm.rank :: comm.size].to(device),
        y_test=data.y_test[comm.rank :: comm.size].to(device),
        clock=Clock(device),
        tally=tally,
        own=Tally(),
    )


def _load_in_turn(experiment: Experiment, comm: Comm) -> Dataset:
    """Rank 0 first, since it may have to download what the others then find."""
    if comm.rank == 0:
        data = load(experiment.data, download=True)
        comm.barrier(DOWNLOAD)
        return data
    comm.barrier(DOWNLOAD)
    return load(experiment.data, download=False)
