"""Random histories: a seed, a number of steps, and up to ten members, each of an implementation drawn at random.

A step that one of the members lacks is given up, and another is tried in its place; since the interface keeps old
states, nothing has happened then; but `World.spent` says who sends nothing more in that epoch.
Whatever else a peer answers but success ends the history.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from coterie.errors import CoterieError
from coterie.interop.runner.peers import Peer, RefusalError
from coterie.interop.runner.verdicts import HISTORIES, avoided, verdict_of
from coterie.interop.runner.world import PSK_ID, Joiner, Member, Way, World, described

MOST_MEMBERS = 10
_WITHOUT_SENDERS = ("external join", "resync")
"""Steps that need no member who sends."""
_REQUIRED_CAPABILITIES = 3
_REQUIRED = (bytes.fromhex("0000020001"), bytes.fromhex("000000"))


class HistoryError(CoterieError):
    """A history came to an end before its last step."""


@dataclass
class History:
    """One random history."""

    peers: Sequence[Peer]
    suite: int
    way: Way
    seed: int
    done: Counter[str] = field(default_factory=Counter)
    lacked: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often a peer lacked a call that a step needed."""

    def __post_init__(self) -> None:
        """Begins with one member."""
        self._random = random.Random(self.seed)  # noqa: S311 - to be repeatable; no secret is made of it
        self.world = World(self.suite, self.way, group_id=b"history %d" % self.seed)
        self.world.create(self._random.choice(self.peers))
        self._steps: dict[str, tuple[int, Callable[[], None]]] = {
            "add": (3, self._add),
            "remove": (2, self._remove),
            "empty Commit": (2, self._empty),
            "messages": (4, self._messages),
            "external join": (1, self._external),
            "resync": (1, self._resync),
            "proposals of several": (6, self._several),
            "extensions": (1, self._extensions),
            "new member's proposal": (1, self._newcomer),
        }

    def play(self, steps: int, progress: Callable[[], None] = lambda: None) -> None:
        """Takes the steps; raises `HistoryError` where one fails."""
        tries = 0
        while sum(self.done.values()) < steps:
            tries += 1
            if tries > 4 * steps + 20:
                msg = f"too much is lacking: {dict(self.lacked)}"
                raise HistoryError(msg)
            if self._step(tries):
                progress()

    def _step(self, number: int) -> bool:
        names = list(self._steps) if self._senders else list(_WITHOUT_SENDERS)
        (name,) = self._random.choices(names, [self._steps[each][0] for each in names])
        try:
            self._steps[name][1]()
        except RefusalError as error:
            known = verdict_of(error.peer, error.call, error.words, HISTORIES)
            if error.lacking or known:
                self.lacked[error.peer, error.call] += 1
                return False
            raise self._failed(number, name, error) from error
        except CoterieError as error:
            raise self._failed(number, name, error) from error
        self.done[name] += 1
        return True

    def _failed(self, number: int, name: str, error: CoterieError) -> HistoryError:
        return HistoryError(f"seed {self.seed}, step {number} ({name}): {error}")

    # -- steps

    @property
    def _members(self) -> list[Member]:
        return self.world.members

    @property
    def _senders(self) -> list[Member]:
        return [each for each in self._members if each.identity not in self.world.spent]

    def _any(self) -> Member:
        return self._random.choice(self._members)

    def _sender(self) -> Member:
        return self._random.choice(self._senders)

    def _joiners(self, most: int) -> list[Joiner]:
        room = MOST_MEMBERS - len(self._members)
        count = self._random.randint(0, max(0, min(most, room)))
        return [self.world.joiner(self._random.choice(self.peers)) for _ in range(count)]

    def _add(self) -> None:
        joiners = self._joiners(3)
        adds = [described(j.peer, "add", key_package=j.key_package) for j in joiners]
        self.world.commit(self._sender(), by_value=adds, joiners=joiners)

    def _remove(self) -> None:
        if len(self._members) < 3:
            return self._add()
        committer = self._sender()
        removed = self._random.choice([each for each in self._members if each is not committer])
        gone = described(committer.peer, "remove", removed_id=removed.identity)
        return self.world.commit(committer, by_value=[gone], removed=[removed])

    def _empty(self) -> None:
        self.world.commit(self._sender())

    def _messages(self) -> None:
        count = self._random.randint(1, 4)
        texts = [self._random.randbytes(self._random.randint(0, 200)) for _ in range(count)]
        order = self._random.sample(range(count), count)
        self.world.write(self._sender(), texts, order)

    def _external(self) -> None:
        if len(self._members) == MOST_MEMBERS:
            return self._resync()
        self.world.external_join(self._random.choice(self.peers), self._any())
        return None

    def _resync(self) -> None:
        if len(self._members) < 2:
            return self._external()
        publisher, lost = self._random.sample(self._members, 2)
        self.world.external_join(lost.peer, publisher, prior=lost)
        return None

    def _extensions(self) -> None:
        committer = self._sender()
        extension = committer.peer.messages.Extension(
            extension_type=_REQUIRED_CAPABILITIES, extension_data=self._random.choice(_REQUIRED)
        )
        change = described(committer.peer, "groupContextExtensions", extensions=[extension])
        self.world.commit(committer, by_value=[change])

    def _newcomer(self) -> None:
        if len(self._members) >= MOST_MEMBERS:
            return self._remove()
        peer, member = self._random.choice(self.peers), self._any()
        identity = self.world.name(peer)
        info = member.peer.GroupInfo(state_id=member.state, external_tree=False)
        made = peer.NewMemberAddProposal(group_info=info.group_info, identity=identity)
        joiner = Joiner(peer, identity, made.transaction_id, b"")
        return self.world.commit(self._sender(), [made.proposal], joiners=[joiner])

    def _several(self) -> None:
        """Some propose Updates, Removes, Adds and PSKs, and one of the others commits them all."""
        members = self._random.sample(self._senders, len(self._senders))
        committer, proposers = members[0], members[1:]
        removed = proposers.pop() if len(proposers) > 2 and self._random.random() < 0.5 else None
        references, values = self._some_updates(proposers), []
        if removed is not None:
            by = self._random.choice([committer, *proposers])
            gone: dict[str, Any] = {"removed_id": removed.identity}
            if by is committer or avoided(by.peer.name, "RemoveProposal"):
                values.append(described(by.peer, "remove", **gone))
            else:
                references.append(self.world.propose(by, "RemoveProposal", **gone))
        joiners = self._joiners(2)
        for joiner in joiners:
            by = self._random.choice(members[1:] or members)
            if by is committer or by is removed:
                values.append(described(by.peer, "add", key_package=joiner.key_package))
            else:
                add = self.world.propose(by, "AddProposal", key_package=joiner.key_package)
                references.append(add)
        self._perhaps_psk(committer, proposers, joiners, references, values)
        self.world.commit(
            committer, references, values, joiners=joiners, removed=[removed] if removed else []
        )

    def _some_updates(self, proposers: Sequence[Member]) -> list[bytes]:
        return [
            self.world.propose(member, "UpdateProposal")
            for member in proposers
            if self._random.random() < 0.4
        ]

    def _perhaps_psk(
        self,
        committer: Member,
        proposers: Sequence[Member],
        joiners: Sequence[Joiner],
        references: list[bytes],
        values: list[Any],
    ) -> None:
        if self._random.random() < 0.5:
            return
        self.world.share_psk()
        for joiner in joiners:
            self.world.share_psk_with(joiner)
        if proposers and self._random.random() < 0.5:
            by = self._random.choice(proposers)
            references.append(self.world.propose(by, "ExternalPSKProposal", psk_id=PSK_ID))
        else:
            values.append(described(committer.peer, "externalPSK", psk_id=PSK_ID))
