"""The messages of this rank's clients in a round, on their way to the exchange.

How a message is changed or coded is decided by transforms and encoders; here is only the order. A
message is masked, transformed and coded as early as possible, so that at most one waits. All of
them must wait if a vote decides which places travel, or if clients may stay silent; and what is
coded by low rank stays in memory until the delivery.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from trainer.engine.parts import RankState
from trainer.engine.watch import KEPT, UPDATE
from trainer.exchange.lanes import Poll
from trainer.exchange.masks import blank
from trainer.exchange.message import Cohort, Delivery, Message, Places, Terms
from trainer.exchange.reductions.reduction import Exchange, Handle
from trainer.exchange.transforms.transform import Context
from trainer.turn import Memory


class Outbox:
    """The messages of one rank in one round."""

    def __init__(self, rank: RankState, cohort: Cohort) -> None:
        self.rank, self.parts, self.cohort = rank, rank.parts, cohort
        parts = self.parts
        self.vectors, self.named = rank.vectors, parts.algorithm.vectors
        # does anybody want to know what the others got of a message?
        self.report = parts.algorithm.listens or any(t.accounts for t in parts.chain)
        needs_places = self.report or bool(parts.chain) or not parts.reduction.folds
        self.silences = any(transform.silences for transform in parts.chain)
        self.waits = self.silences or (parts.policy.voting and needs_places)
        self.waiting: list[Message] = []
        self.unsettled: list[Message] = []  # sent, but what arrives of them is not known yet
        self.votes: Tensor | None = None
        # without a vote, the places that travel are already known
        self.places = None if parts.policy.voting else parts.policy.select(None)
        # begins with the first message, so that an earlier one that is under way has arrived
        self.exchange: Exchange | None = None

    def _begin(self, senders: Cohort) -> Exchange:
        server = self.rank.server
        terms = Terms(
            cohort=senders,
            vectors=self.vectors,
            size=len(server.anchor),
            seed=self.rank.experiment.seed,
            places=self.places,
            lengths={"buffers": len(server.buffers)},
            report=self.report,
            like=server.anchor,
        )
        overlap = self.rank.overlap
        group = self.parts.group if overlap is None else overlap.group
        return self.parts.reduction.begin(group, terms)

    def _begun(self) -> Exchange:
        """Return the exchange of a round in which messages leave as soon as they are there."""
        if self.exchange is None:
            self.exchange = self._begin(self.cohort)
        return self.exchange

    # ------------------------------------------------------------------ one client

    def offer(self, message: Message, ballot: Tensor | None) -> None:
        """Take the message of a client that has trained, and its vote, if it has one."""
        if ballot is not None:
            counts = ballot.to(torch.int32)
            self.votes = counts if self.votes is None else self.votes.add_(counts)
            self.parts.group.books.upload({"votes": self.parts.policy.ballot_bytes()})
        client = message.sender.client
        self.rank.watch.loss(client, self.rank.loss.sum)
        self.rank.watch.look(client, UPDATE, message.vectors.values())
        if not self.report:
            self._look_at_kept(client)  # else once it is known what the others got
        if self.waits:
            self.waiting.append(message)
        else:
            self._transform(message)
            self._send(self._begun(), message)

    def _transform(self, message: Message) -> None:
        """Set the values that do not travel to zero, then apply the chain of transforms."""
        places = self.places
        if places is None or not (self.report or self.parts.chain):
            return  # the reduction leaves them out, once for all clients
        if places.mask is not None:
            for vector in self.named:
                values = message.vectors[vector.name]
                blank(values, places.mask, out=values)
        server = self.rank.server
        context = Context(server.number, server.anchor, places, self.parts.worker.total)
        for at, transform in enumerate(self.parts.chain):
            memory = self._memory(message, at)
            transform.outgoing(message, self.named, memory, context)
            message.passed = at + 1
            if message.silent:
                break

    def _memory(self, message: Message, at: int) -> Memory:
        """What a transform of the chain keeps of the sender."""
        if not self.parts.chain[at].keeps:
            return {}
        return self.rank.store.memory(message.sender.client, f"transform{at}")

    def _send(self, exchange: Exchange, message: Message) -> None:
        with self.rank.pace.code():
            sent = exchange.add(message)
        if sent is None:
            # until then the place of what is kept holds all that is offered
            self._look_at_kept(message.sender.client)
            self.unsettled.append(replace(message, vectors={}))
        elif self.report:
            self._delivered(message, sent)

    def _delivered(self, message: Message, sent: Mapping[str, Tensor]) -> None:
        """Update the kept state from the values that were received, last transform first."""
        self._settle(message, sent)
        self._look_at_kept(message.sender.client)
        self.rank.store.trim()

    def _settle(self, message: Message, sent: Mapping[str, Tensor]) -> None:
        for at in reversed(range(message.passed)):
            self.parts.chain[at].delivered(self.named, sent, self._memory(message, at))
        if self.parts.algorithm.listens:
            memory = self.rank.store.memory(message.sender.client, "algorithm")
            self.parts.algorithm.delivered(memory, sent)

    def _look_at_kept(self, client: int) -> None:
        """Look at what is kept of a client, which is in memory at the end of its turn."""
        for memory in self.rank.store.records.get(client, {}).values():
            self.rank.watch.look(client, KEPT, memory.values())

    # ------------------------------------------------------------------ all ranks

    def select(self) -> Places:
        """Return the places that travel, after a vote of the round's clients if there is one."""
        policy, group = self.parts.policy, self.parts.group
        if self.places is None:
            poll = self._poll()
            if policy.lanes:
                decided = group.vote(poll)
            else:
                group.all_reduce(poll.votes, {"votes": len(poll.votes)}).wait()
                decided = poll.votes >= poll.quorum
            self.places = policy.select(decided)
        return self.places

    def _poll(self) -> Poll:
        """Return the votes of this rank's clients, and what decides."""
        policy, votes = self.parts.policy, self.votes
        if votes is None:  # no client of the round is on this rank
            device = self.parts.group.device
            votes = torch.zeros(policy.items, dtype=torch.int32, device=device)
        return Poll(votes, self.cohort.most(), policy.quorum(len(self.cohort.members)))

    def close(self, places: Places, stop: bool) -> tuple[Cohort, Handle]:
        """Send what waited, and start the exchange; returns who sends, and the exchange under way.

        places: as `select` chose them; stop: was this rank asked to?
        """
        senders = self.cohort
        if not self.waits:
            exchange = self._begun()
        else:
            for message in self.waiting:
                self._transform(message)
                self.rank.store.trim()
            if self.silences:
                senders = self._senders()
                if not senders.members:
                    self.places = places = Places(
                        places.size, torch.zeros_like(self.rank.server.anchor, dtype=torch.bool), 0
                    )
            exchange = self.exchange = self._begin(senders)
            weighted = {member.client: member for member in senders.members}
            while self.waiting:
                message = self.waiting.pop(0)
                if message.silent:
                    self._stay_silent(message)
                else:
                    message.sender = weighted[message.sender.client]
                    self._send(exchange, message)
        poll = self._poll() if self.parts.policy.polling else None
        return senders, Handle(exchange.finish(places, stop, poll))

    def settle(self, delivery: Delivery) -> None:
        """Tell clients what arrived of their messages, if only the delivery could say."""
        for message in self.unsettled:
            assert delivery.report is not None
            self._settle(message, delivery.report(message.sender.client))
            self.rank.store.trim()

    def _senders(self) -> Cohort:
        """Return the clients that send something; every rank reports its silent clients."""
        silent = {message.sender.client for message in self.waiting if message.silent}
        told = [int(member.client in silent) for member in self.cohort.members]
        flags = torch.tensor(told, dtype=torch.int32, device=self.parts.group.device)
        self.parts.group.all_reduce(flags, {"control": len(told)}).wait()
        return self.cohort.only(
            {
                m.client
                for m, off in zip(self.cohort.members, flags.tolist(), strict=True)
                if not off
            }
        )

    def _stay_silent(self, message: Message) -> None:
        """Count the one byte by which a client reports that it sends nothing."""
        if self.parts.line.rank == 0:  # one of a model's stages reports it
            self.parts.group.books.upload({"control": 1})
        if self.report:
            nothing = {v.name: torch.zeros_like(message.vectors[v.name]) for v in self.vectors}
            self._delivered(message, nothing)
