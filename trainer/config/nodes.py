"""Settings of averages within nodes, which come between two exchanges of all clients.

The averages are in trainer/engine/nodes.py.
"""

from typing import ClassVar

from trainer.config.base import MANY, Only, Section, setting
from trainer.config.fit import APART, EVERYONE, LOCAL, WHOLE


class Nodes(Section):
    """Hierarchical local SGD (Lin et al., ICLR 2020): clients of a node average more often.

    A node is ranks with fast links among them, each of which trains one client. Every H local steps
    its clients take their mean, as it is; the round's end averages all clients, as it would anyway,
    by the sync policy and in the codec's format. So with b H local steps in a round, what crosses
    nodes does so once for b averages.
    """

    effects: ClassVar[dict[str, Only]] = {"every": Only("clients", but=(1,), remedy="2")}
    clients: int = setting(
        1,
        help="clients that are a node, those of ranks 0 to this less one the first; 1: no averages "
        "within a round. It needs a rank for each client, and placement=fixed",
        ge=1,
        le=MANY,
        fixed=True,
    )
    every: int = setting(
        1,
        help="H: local steps between two averages of a node; the last of a round is that of all",
        unit="steps",
        ge=1,
        le=MANY,
    )

    @property
    def required(self) -> dict[str, str]:
        """The needs of averages within a round, if there are any."""
        if self.clients == 1:
            return {}
        return {
            LOCAL: "a node averages between local steps",
            WHOLE: "a node averages all values of its clients",
            EVERYONE: "a node waits for each of its clients",
            APART: "a node's average moves a client as none of its steps would",
        }
