"""Error feedback (Seide et al. 2014; Karimireddy et al., ICML 2019): no loss of coding is final.

How values are coded is not known here. Symbols: e_k = residual of client k, u_k = its update,
C(v) = the vector that the others decode from the coded v. The client sends p = u_k + e_k and keeps
e_k <- p - C(p). Summed over the rounds this telescopes: everything that was sent plus the residual
that is kept equals the sum of all updates, whatever C does. Without the residual, C's errors would
add up instead.
"""

from trainer.exchange.masks import blank
from trainer.exchange.message import Message, Vector
from trainer.exchange.transforms.transform import Accounting, Context, Continuing, adding_up
from trainer.turn import Memory


class ErrorFeedback(Accounting):
    """A residual (P,) for each client and each vector that adds up over rounds.

    Between `outgoing` and `delivered`, the residual's memory holds the whole offer p. Where the
    round's mask is off nothing is offered, and the residual waits for a later round.
    """

    def outgoing(
        self, message: Message, vectors: tuple[Vector, ...], memory: Memory, context: Context
    ) -> None:
        for name in adding_up(vectors):
            update = message.vectors[name]
            if name not in memory:
                memory[name] = update
            elif (mask := context.places.mask) is not None:
                blank(memory[name].add_(update), mask, out=update)
            else:
                # one tensor for both: what is kept changes again only once the message has left
                message.vectors[name] = memory[name].add_(update)


class StepAhead(Continuing):
    """Step-ahead error feedback (Xu, Huo, Huang, AAAI 2021): the residual before the steps.

    Client k trains from x - e_k, x the agreed model, and not from x. So its gradients are those of
    the point that its own updates have led to, and its next update, x - y_k, contains the residual
    by itself. What it kept while it was away is corrected by its own steps, where a plain residual
    would be added as it was.
    """

    def outgoing(
        self, message: Message, vectors: tuple[Vector, ...], memory: Memory, context: Context
    ) -> None:
        for name in adding_up(vectors):
            memory[name] = message.vectors[name]
