"""CMFL's decision, by hand on a few coordinates of one stage."""

import torch

from trainer.config.communication import CMFL as Settings
from trainer.exchange.message import Message, Participant, Places, Vector
from trainer.exchange.transforms.cmfl import CMFL
from trainer.exchange.transforms.transform import Context


def test_the_shares_of_all_stages_decide_and_are_added_up_at_once():
    transform, asked = CMFL(Settings(relevance=0.5, decay_rounds=1)), []
    transform.applied(torch.tensor([1.0, 1.0, -1.0, 1.0]), lambda value: value)
    for others, silent in [((4, 4), False), ((0, 1), False), ((0, 4), True)]:

        def total(value, others=others):  # of the other stages: coordinates that agree, and all
            asked.append(value.tolist())
            return value + torch.tensor(others)

        update = {"delta": torch.tensor([1.0, 2.0, -1.0, -3.0])}
        message = Message(Participant(0, 0, 1.0, 1, 1, 1.0), update)
        context = Context(1, torch.zeros(4), Places(4), total)
        transform.outgoing(message, (Vector("delta"),), {}, context)
        assert message.silent == silent
    assert asked == [[3, 4]] * 3
