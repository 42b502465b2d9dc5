"""Adam (Kingma, Ba, ICLR 2015) and AdamW (Loshchilov, Hutter, ICLR 2019) at clients.

The kernel is that of torch.optim.Adam(fused=True), handed the flat vectors themselves: one pass
over them, the same bits, no optimizer object, and on a GPU no wait for it. Symbols, as torch names
its state: m = exp_avg, v = exp_avg_sq, (P,) each, t = step:

    g <- g + wd x (Adam)   or   x <- x - eta wd x (AdamW)
    t <- t + 1;   m <- beta1 m + (1 - beta1) g;   v <- beta2 v + (1 - beta2) g^2
    x <- x - eta (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
"""

import torch
from torch import Tensor
from torch.optim.adam import adam

from trainer.algorithms.optimizer import LocalOptimizer
from trainer.config.optimizers import Moments as Settings
from trainer.turn import Memory


class LocalAdam(LocalOptimizer):
    """Adam at a client; its state is that of torch.optim.Adam."""

    names = ("exp_avg", "exp_avg_sq", "step")

    def __init__(self, settings: Settings, decay: Tensor | None = None) -> None:
        super().__init__(settings, decay)
        self.betas, self.eps = (settings.beta1, settings.beta2), settings.eps

    def state(self, x: Tensor) -> Memory:
        # single precision whatever x has, and on its device, as the kernel wants it
        step = torch.zeros((), dtype=torch.float32, device=x.device)
        return super().state(x) | {"step": step}

    def move(self, x: Tensor, g: Tensor, lr: float, state: Memory) -> None:
        adam(
            [x],
            [g],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            fused=True,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=lr,
            weight_decay=self.weight_decay,
            eps=self.eps,
            maximize=False,
            decoupled_weight_decay=self.decoupled,
        )


class LocalAdamW(LocalAdam):
    """AdamW at a client: weight decay does not pass through the moments."""

    decoupled = True
