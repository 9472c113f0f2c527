"""A group whose members belong to different implementations, and the steps that it takes.

A step goes through for everybody or for nobody: the interface leaves the old state of an epoch as it was, so the
members are moved to their new states only once all have answered and agree. There are two exceptions, and `spent` says
who sends nothing more in this epoch because of them, after a step that was given up.
"""

# ruff: noqa: ANN401 - the messages' types exist only once the interface is compiled

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from coterie.errors import CoterieError
from coterie.interop.runner.differences import explained
from coterie.interop.runner.peers import Peer

PSK_ID, PSK_SECRET = b"a shared key", bytes(range(32))
_EXPORTED = 40


class DifferenceError(CoterieError):
    """Members of one epoch do not agree, or a message reads other than it was written."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member: whose it is, its name in the group, its present state."""

    peer: Peer
    identity: bytes
    state: int

    @property
    def name(self) -> str:
        """For people: the implementation and the identity."""
        return f"{self.peer.name}'s {self.identity.decode()}"


@dataclass(frozen=True, slots=True)
class Joiner:
    """A key package that waits for its Welcome."""

    peer: Peer
    identity: bytes
    transaction: int
    key_package: bytes


@dataclass(frozen=True, slots=True)
class Way:
    """In which form things travel."""

    encrypt: bool
    """Whether handshake messages are PrivateMessages."""
    beside: bool
    """Whether the tree travels beside Welcome and GroupInfo."""

    def __str__(self) -> str:
        """For people and files."""
        return f"{'private' if self.encrypt else 'public'}/{'beside' if self.beside else 'inside'}"


WAYS = tuple(Way(encrypt, beside) for encrypt in (False, True) for beside in (False, True))


@dataclass
class World:
    """A group and what the scenarios need to build it."""

    suite: int
    way: Way
    group_id: bytes = b"group"
    members: list[Member] = field(default_factory=list)
    epochs: int = 0
    messages: int = 0
    spent: set[bytes] = field(default_factory=set)
    """Who sends nothing more in this epoch.

    Who has sent an encrypted handshake message: the old state that a peer goes back to would send under the same
    generation again, and a receiver that has used up its key is right to refuse that (RFC 9420 §9.1). Who has proposed:
    the proposal waits in the old state, and with one that waits nothing is written (§12.4). And who was asked to take
    proposals in: a peer may keep them (Bouncy Castle does), and would commit them as well.
    """
    _count: int = 0

    # -- entering

    def name(self, peer: Peer) -> bytes:
        """A name that no member has yet."""
        self._count += 1
        return f"{peer.name}-{self._count}".encode()

    def create(self, peer: Peer) -> Member:
        """Lets a peer begin the group."""
        identity = self.name(peer)
        answer = peer.CreateGroup(
            group_id=self.group_id,
            cipher_suite=self.suite,
            encrypt_handshake=self.way.encrypt,
            identity=identity,
        )
        self.members = [Member(peer, identity, answer.state_id)]
        return self.members[0]

    def joiner(self, peer: Peer, identity: bytes | None = None, suite: int | None = None) -> Joiner:
        """Lets a peer make a key package."""
        identity = identity or self.name(peer)
        made = peer.CreateKeyPackage(cipher_suite=suite or self.suite, identity=identity)
        return Joiner(peer, identity, made.transaction_id, made.key_package)

    def add(self, committer: Member, *peers: Peer) -> list[Member]:
        """Adds a member of each peer by value, in one Commit; gives the new ones."""
        joiners = [self.joiner(peer) for peer in peers]
        adds = [described(peers[0], "add", key_package=j.key_package) for j in joiners]
        self.commit(committer, by_value=adds, joiners=joiners)
        return self.members[-len(joiners) :]

    def external_join(
        self, peer: Peer, publisher: Member, prior: Member | None = None, psks: Sequence[Any] = ()
    ) -> Member:
        """Lets a peer join by external Commit; in place of `prior`, if that is given."""
        info = self.group_info(publisher)
        identity = prior.identity if prior else self.name(peer)
        joined = peer.ExternalJoin(
            group_info=info.group_info,
            ratchet_tree=info.ratchet_tree,
            encrypt_handshake=self.way.encrypt,
            identity=identity,
            remove_prior=prior is not None,
            psks=psks,
        )
        staying = [m for m in self.members if prior is None or m.identity != prior.identity]
        following = [followed(member, (), joined.commit) for member in staying]
        self._arrive([*following, Member(peer, identity, joined.state_id)])
        return self.members[-1]

    # -- epochs

    def commit(
        self,
        committer: Member,
        by_reference: Sequence[bytes] = (),
        by_value: Sequence[Any] = (),
        *,
        joiners: Iterable[Joiner] = (),
        removed: Iterable[Member] = (),
        force_path: bool = False,
    ) -> None:
        """A member commits, everybody follows, joiners join, and the new epoch is compared."""
        committer = self.now(committer)
        if self.way.encrypt or by_reference:
            self.spent.add(committer.identity)
        answer = committer.peer.Commit(
            state_id=committer.state,
            by_reference=by_reference,
            by_value=by_value,
            force_path=force_path,
            external_tree=self.way.beside,
        )
        gone = {member.identity for member in removed}
        following = []
        for member in self.members:
            if member.identity == committer.identity:
                state = member.peer.HandlePendingCommit(state_id=member.state).state_id
                following.append(replace(member, state=state))
            elif member.identity not in gone:
                if by_reference:
                    self.spent.add(member.identity)
                following.append(followed(member, by_reference, answer.commit))
        self._arrive([*following, *(self._joined(joiner, answer) for joiner in joiners)])

    def propose(self, proposer: Member, call: str, **fields: object) -> bytes:
        """Lets a member propose something; gives the message."""
        member = self.now(proposer)
        self.spent.add(member.identity)
        made: bytes = getattr(member.peer, call)(state_id=member.state, **fields).proposal
        return made

    def _joined(self, joiner: Joiner, answer: Any) -> Member:
        joined = joiner.peer.JoinGroup(
            transaction_id=joiner.transaction,
            welcome=answer.welcome,
            encrypt_handshake=self.way.encrypt,
            identity=joiner.identity,
            ratchet_tree=answer.ratchet_tree,
        )
        return Member(joiner.peer, joiner.identity, joined.state_id)

    def _arrive(self, members: list[Member]) -> None:
        agree(members)
        self.members = members
        self.spent.clear()
        self.epochs += 1

    def now(self, member: Member) -> Member:
        """The same member in its present state."""
        return next(m for m in self.members if m.identity == member.identity)

    def free(self) -> None:
        """Lets every peer forget its members' present states."""
        for member in self.members:
            member.peer.Free(state_id=member.state)
        self.members = []

    def settle(self, members: list[Member]) -> None:
        """Goes on with another group of the same members: a successor or a branch."""
        self._arrive(members)

    # -- within an epoch

    def group_info(self, member: Member) -> Any:
        """Lets a member publish the group."""
        member = self.now(member)
        return member.peer.GroupInfo(state_id=member.state, external_tree=self.way.beside)

    def share_psk(self) -> None:
        """Gives every member the external pre-shared key."""
        for m in self.members:
            m.peer.StorePSK(state_or_transaction_id=m.state, psk_id=PSK_ID, psk_secret=PSK_SECRET)

    def share_psk_with(self, joiner: Joiner) -> None:
        """Gives a joiner the external pre-shared key."""
        joiner.peer.StorePSK(
            state_or_transaction_id=joiner.transaction, psk_id=PSK_ID, psk_secret=PSK_SECRET
        )

    def write(self, writer: Member, texts: Sequence[bytes], order: Sequence[int]) -> None:
        """A member writes; all others read, in the order given by the texts' places."""
        writer = self.now(writer)
        sent = [
            writer.peer.Protect(
                state_id=writer.state, authenticated_data=b"about " + text, plaintext=text
            ).ciphertext
            for text in texts
        ]
        for reader in self.members:
            if reader.identity == writer.identity:
                continue
            for place in order:
                got = reader.peer.Unprotect(state_id=reader.state, ciphertext=sent[place])
                if (got.plaintext, got.authenticated_data) != (
                    texts[place],
                    b"about " + texts[place],
                ):
                    msg = f"{reader.name} reads {got.plaintext!r} where {writer.name} wrote {texts[place]!r}"
                    raise DifferenceError(msg)
                self.messages += 1

    def chat(self, order: Sequence[int] = (0, 1)) -> None:
        """Everybody writes as many messages as `order` has places, and everybody else reads them in that order."""
        texts = [b"message %d" % number for number in range(len(order))]
        for writer in list(self.members):
            self.write(writer, texts, order)


def followed(member: Member, proposals: Sequence[bytes], commit: bytes) -> Member:
    """The member after somebody else's Commit."""
    answer = member.peer.HandleCommit(state_id=member.state, proposal=proposals, commit=commit)
    return replace(member, state=answer.state_id)


def agree(members: list[Member]) -> None:
    """Raises `DifferenceError` unless epoch authenticators and an exporter value are the same for all."""
    values = {
        "the epoch authenticator": [
            m.peer.StateAuth(state_id=m.state).state_auth_secret for m in members
        ],
        "the exporter's secret": [
            m.peer.Export(
                state_id=m.state, label="runner", context=b"here", key_length=_EXPORTED
            ).exported_secret
            for m in members
        ],
    }
    for what, found in values.items():
        if len(set(found)) != 1:
            who = ", ".join(f"{m.name} {v.hex()[:8]}" for m, v in zip(members, found, strict=True))
            msg = f"{what} differs ({who}), {explained(members)}"
            raise DifferenceError(msg)


def described(peer: Peer, proposal_type: str, **fields: object) -> Any:
    """A ProposalDescription."""
    return peer.messages.ProposalDescription(proposal_type=proposal_type.encode(), **fields)
