"""FedGA, gradient alignment by displacement (Dandi, Barba, Jaggi, AAAI 2022).

Only the displacement is here; local steps and the server's step are FedAvg's. Symbols: x = anchor,
f_i = loss of client i, f = their mean, G_i = gradient (of f_i on all its samples, at x), G =
mean_gradient, v_i = -beta (G - G_i): client i trains from x + v_i.

Why it aligns gradients: the v_i have mean zero, so by themselves they do not move the average. For
one local step, with H_i the Hessian of f_i,

    mean grad f_i(x + v_i) = G + mean H_i v_i + O(beta^2) = G + beta mean H_i (G_i - G) + O(beta^2),

and mean H_i (G_i - G) is the gradient of mean ||G_i - G||^2 / 2. So the averaged update is a step
on f + (beta / 2) mean ||G_i - G||^2, up to O(beta^2): it penalises the variance of the gradients
without computing a second derivative.
"""

from trainer.algorithms.fedavg import FedAvg
from trainer.algorithms.optimizer import LocalOptimizer
from trainer.config.learning import FedGA as Settings
from trainer.turn import Turn


class FedGA(FedAvg):
    """FedGA: two exchanges a round, gradients and then updates; no state between rounds."""

    needs = "mean gradient"

    def __init__(self, settings: Settings, optimizer: LocalOptimizer) -> None:
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
