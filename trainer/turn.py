"""The state that an algorithm sees: the agreed model, and one client's turn of local training.

It contains no collective, mask or codec.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

Memory = dict[str, Tensor]  # tensors by name that one part keeps for a client or for the server


@dataclass
class Server:
    """The state that all ranks agree on, bit for bit.

    anchor: x, the global model, (P,); state: the algorithm's other vectors, (P,) each, and single
    numbers; buffers: BatchNorm's statistics, (B,). number, lr and lr_scale are those of the current
    round.
    """

    anchor: Tensor
    state: Memory
    buffers: Tensor
    number: int = 0  # the round, from 1
    lr: float = 0.0  # eta at the round's first step
    lr_scale: float = 1.0  # the schedule's factor in eta
    total: Callable[[Tensor], Tensor] | None = None  # over the stages of a pipeline; None: no other

    def part(self, place: slice) -> "Server":
        """Return a fragment of the model, as views: changing it changes this object."""
        state = {name: v[place] if v.dim() else v for name, v in self.state.items()}
        rates = self.number, self.lr, self.lr_scale
        return Server(self.anchor[place], state, self.buffers, *rates, self.total)


def alone(value: Tensor) -> Tensor:
    """Return the sum over the model's stages, if one device holds the whole model: the value."""
    return value


@dataclass
class Turn:
    """One client's local training in one round. P: length of the flat model.

    server: x and its state, read-only; params: y_i, the client's copy, (P,), which the network's
    parameters are views of; grads: the gradient of the latest batch, (P,); memory: the state that
    the algorithm keeps of this client between rounds; what others hold too (a control) changes only
    in `delivered`; work: temporary state of this turn, created in `begin`.
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
    batch: int = 0  # predictions that the latest gradient is the mean of: images, or tokens
    gradient: Tensor | None = None  # G_i (P,), the client's full gradient at x, if needed
    mean_gradient: Tensor | None = None  # G (P,), its mean over the round's clients, if needed
    work: Memory = field(default_factory=dict)
