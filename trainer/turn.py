"""What an algorithm sees: the agreed model, and one client's turn at training from it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

Memory = dict[str, Tensor]  # tensors by name: what one part keeps of a client, or of the server


@dataclass
class Server:
    """What all ranks agree on, bit for bit.

    anchor: x, the global model, (P,); state: what the algorithm keeps beside it, (P,) each;
    buffers: BatchNorm's statistics, (B,). The numbers are those of the round that is being run.
    """

    anchor: Tensor
    state: Memory
    buffers: Tensor
    number: int = 0  # the round, from 1
    lr: float = 0.0  # eta at the round's first step
    lr_scale: float = 1.0  # the schedule's factor in eta

    def part(self, place: slice) -> "Server":
        """A fragment of the model, as views: what is done to it is done here."""
        state = {name: vector[place] for name, vector in self.state.items()}
        return Server(self.anchor[place], state, self.buffers, self.number, self.lr, self.lr_scale)


def alone(value: Tensor) -> Tensor:
    """The sum over the model's stages, if one device holds the whole model."""
    return value


@dataclass
class Turn:
    """One client's local training in one round. P: length of the flat model.

    server: x and what goes with it, to be read only; params: y_i, the client's copy, (P,), behind
    the live network; grads: the gradient of the latest batch, (P,); memory: what the algorithm
    keeps of this client between rounds, which only `delivered` may change; work: scratch of this
    turn, created in `begin`.
    """

    client: int
    server: Server
    params: Tensor
    grads: Tensor
    memory: Memory
    total: Callable[[Tensor], Tensor] = alone  # over the stages of a pipeline
    steps: int = 0  # K, local steps of this client
    lr: float = 0.0  # eta of this step
    mean_lr: float = 0.0  # mean of eta over the client's steps
    batch: int = 0  # samples that the latest gradient is the mean of
    gradient: Tensor | None = None  # G_i (P,), the client's full gradient at x, if asked for
    mean_gradient: Tensor | None = None  # G (P,), its mean over the round's clients, likewise
    work: Memory = field(default_factory=dict)
