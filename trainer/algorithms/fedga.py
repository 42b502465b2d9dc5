"""FedGA, gradient alignment by displacement (Dandi, Barba, Jaggi, AAAI 2022).

Symbols: x = anchor, G_i = gradient (of client i on all its samples, at x), G = mean_gradient,
v_i = -beta (G - G_i): client i trains from x + v_i. The displacements sum to zero, and for one
local step the averaged update is a gradient step on f + (beta / 2) mean ||G_i - G||^2, up to
O(beta^2).
"""

from trainer.algorithms.fedavg import FedAvg
from trainer.algorithms.sgd import LocalSGD
from trainer.config.learning import FedGA as Settings
from trainer.turn import Turn


class FedGA(FedAvg):
    """Two exchanges a round: the gradients, then the updates; no state between rounds."""

    needs = "mean gradient"

    def __init__(self, settings: Settings, optimizer: LocalSGD) -> None:
        super().__init__(settings, optimizer)
        self.beta, self.scale_beta = settings.beta, settings.scale_beta
        self.gradient_samples = settings.gradient_samples

    def begin(self, turn: Turn) -> None:
        super().begin(turn)
        assert turn.gradient is not None and turn.mean_gradient is not None
        beta = self.beta * turn.server.lr_scale if self.scale_beta else self.beta
        # y <- x + v_i = x + beta (G_i - G)
        turn.params.add_(turn.gradient, alpha=beta)
        turn.params.sub_(turn.mean_gradient, alpha=beta)
