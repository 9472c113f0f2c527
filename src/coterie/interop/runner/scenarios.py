"""What is played with two implementations: everything that the interface allows, each side in each part.

A scenario begins with an empty group and two peers; most start from three members, `first`, `second`, `first`, and let
both sides propose and commit. It ends well or raises `RefusalError` or `DifferenceError`; `World` compares every epoch.
"""

# ruff: noqa: ANN401 - the messages' types exist only once the interface is compiled

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from coterie.interop.runner.peers import Peer
from coterie.interop.runner.world import (
    PSK_ID,
    PSK_SECRET,
    DifferenceError,
    Joiner,
    Member,
    World,
    described,
)

Play = Callable[[World, Peer, Peer], None]

_REQUIRED_CAPABILITIES = 3
_REQUIRED = (bytes.fromhex("0000020001"), bytes.fromhex("000000"))
"""RequiredCapabilities: basic credentials, and nothing."""
_PRIVATE_TYPE = 0xFF00
_REQUIRED_PRIVATE = bytes.fromhex("02ff000000")
"""RequiredCapabilities with the private-use extension, which some want beside it."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A name and what it plays; the first line of the function's docstring says it in words."""

    name: str
    play: Play

    @property
    def about(self) -> str:
        """In words."""
        return (self.play.__doc__ or "").splitlines()[0]


SCENARIOS: dict[str, Scenario] = {}


def _scenario(play: Play) -> Play:
    name = play.__name__.replace("_", "-")
    SCENARIOS[name] = Scenario(name, play)
    return play


def _trio(world: World, first: Peer, second: Peer) -> tuple[Member, Member, Member]:
    creator = world.create(first)
    (other,) = world.add(creator, second)
    (third,) = world.add(other, first)
    return world.now(creator), world.now(other), third


def _extension(peer: Peer, kind: int, data: bytes) -> Any:
    return peer.messages.Extension(extension_type=kind, extension_data=data)


# -- entering


@_scenario
def welcome_one(world: World, first: Peer, second: Peer) -> None:
    """Members join one by one by Welcome."""
    _trio(world, first, second)


@_scenario
def welcome_many(world: World, first: Peer, second: Peer) -> None:
    """Several members join with one Welcome, added by either side."""
    creator = world.create(first)
    new = world.add(creator, second, first, second)
    world.add(new[0], first, second)
    world.commit(new[2])


@_scenario
def external_join(world: World, first: Peer, second: Peer) -> None:
    """Joining by external Commit into a group published by either side."""
    a, b, _ = _trio(world, first, second)
    one = world.external_join(second, a)
    other = world.external_join(first, b)
    world.commit(one)
    world.commit(other)
    world.chat()


@_scenario
def resync(world: World, first: Peer, second: Peer) -> None:
    """Joining again in place of one's own former leaf."""
    a, b, c = _trio(world, first, second)
    world.external_join(second, a, prior=b)
    world.external_join(first, b, prior=a)
    world.commit(c)
    world.chat()


@_scenario
def resync_behind_a_blank(world: World, first: Peer, second: Peer) -> None:
    """Joining again where a leaf before one's former one is blank, so that the leaf changes."""
    a, b, c = _trio(world, first, second)
    (last,) = world.add(a, second)
    _remove(world, b, c)
    world.external_join(second, a, prior=last)
    world.commit(b)
    world.chat()


@_scenario
def external_join_psk(world: World, first: Peer, second: Peer) -> None:
    """An external Commit that injects an external PSK."""
    a, _, _ = _trio(world, first, second)
    world.share_psk()
    psks = [second.messages.PreSharedKey(psk_id=PSK_ID, psk_secret=PSK_SECRET)]
    world.external_join(second, a, psks=psks)


@_scenario
def welcome_below_a_parent(world: World, first: Peer, second: Peer) -> None:
    """Joining by a Welcome without a path secret, below parents that have keys; then all of them commit."""
    creator = world.create(first)
    members = world.add(creator, second, first, second, first, second, first)
    for member in (creator, *members):
        world.commit(member)
    (last,) = world.add(members[3], second)
    world.commit(creator)
    world.commit(last)
    world.chat()


# -- application messages


@_scenario
def messages_in_order(world: World, first: Peer, second: Peer) -> None:
    """Everybody writes three messages, and the others read them in order."""
    _trio(world, first, second)
    world.chat((0, 1, 2))


@_scenario
def messages_out_of_order(world: World, first: Peer, second: Peer) -> None:
    """Everybody writes five messages, and the others read them in another order."""
    _trio(world, first, second)
    world.chat((3, 0, 4, 2, 1))


@_scenario
def messages_of_a_past_epoch(world: World, first: Peer, second: Peer) -> None:
    """A message of the former epoch is read in the state of that epoch."""
    a, b, c = _trio(world, first, second)
    before = list(world.members)
    world.commit(b)
    world.members, after = before, world.members
    world.chat()
    world.members = after
    world.write(a, [b"now"], [0])
    world.write(c, [b"and now"], [0])


# -- proposals and Commits


@_scenario
def commit_empty(world: World, first: Peer, second: Peer) -> None:
    """Commits without proposals from both sides."""
    a, b, c = _trio(world, first, second)
    for committer in (b, a, c, b):
        world.commit(committer)
    world.chat()


@_scenario
def commit_alone(world: World, first: Peer, second: Peer) -> None:
    """The only member commits, then adds others."""
    creator = world.create(first)
    world.commit(creator)
    world.add(creator, second)
    world.chat()


@_scenario
def add_forced_path(world: World, first: Peer, second: Peer) -> None:
    """An Add whose Commit has a path all the same."""
    a, b, _ = _trio(world, first, second)
    for committer, peer in ((a, second), (b, first)):
        joiner = world.joiner(peer)
        add = described(peer, "add", key_package=joiner.key_package)
        world.commit(committer, by_value=[add], joiners=[joiner], force_path=True)


@_scenario
def add_reference(world: World, first: Peer, second: Peer) -> None:
    """An Add that one proposes and another commits."""
    a, b, _ = _trio(world, first, second)
    for one, other, peer in ((a, b, second), (b, a, first)):
        joiner = world.joiner(peer)
        proposal = _add(world, one, joiner)
        world.commit(other, [proposal], joiners=[joiner])


def _add(world: World, proposer: Member, joiner: Joiner) -> bytes:
    return world.propose(proposer, "AddProposal", key_package=joiner.key_package)


@_scenario
def update_reference(world: World, first: Peer, second: Peer) -> None:
    """Each updates in turn, another one commits, and the new leaf keys work."""
    a, b, c = _trio(world, first, second)
    for proposer, committer in ((a, b), (b, c), (c, b)):
        world.commit(committer, [world.propose(proposer, "UpdateProposal")])
        world.commit(committer)
        world.commit(proposer)


@_scenario
def remove_value(world: World, first: Peer, second: Peer) -> None:
    """Either side removes a member of the other, by value."""
    a, b, c = _trio(world, first, second)
    _remove(world, b, c)
    world.add(a, second)
    _remove(world, a, b)
    world.chat()


def _remove(world: World, committer: Member, removed: Member) -> None:
    gone = described(committer.peer, "remove", removed_id=removed.identity)
    world.commit(committer, by_value=[gone], removed=[removed])


@_scenario
def remove_reference(world: World, first: Peer, second: Peer) -> None:
    """A Remove that one proposes and another commits."""
    a, b, c = _trio(world, first, second)
    proposal = world.propose(a, "RemoveProposal", removed_id=c.identity)
    world.commit(b, [proposal], removed=[c])
    (new,) = world.add(b, first)
    proposal = world.propose(b, "RemoveProposal", removed_id=new.identity)
    world.commit(a, [proposal], removed=[new])


@_scenario
def remove_behind_a_blank(world: World, first: Peer, second: Peer) -> None:
    """Either side proposes to remove the last member where a leaf before it is blank."""
    a, b, c = _trio(world, first, second)
    last, more = world.add(a, second, second)
    _remove(world, a, c)
    for proposer, committer, target in ((b, a, more), (a, b, last)):
        gone = world.propose(proposer, "RemoveProposal", removed_id=target.identity)
        world.commit(committer, [gone], removed=[target])
    world.chat()


@_scenario
def psk_external(world: World, first: Peer, second: Peer) -> None:
    """An external PSK by value and by reference, from both sides."""
    a, b, _ = _trio(world, first, second)
    world.share_psk()
    for one, other in ((a, b), (b, a)):
        world.commit(one, by_value=[described(first, "externalPSK", psk_id=PSK_ID)])
        world.commit(other, [world.propose(one, "ExternalPSKProposal", psk_id=PSK_ID)])


@_scenario
def psk_in_welcome(world: World, first: Peer, second: Peer) -> None:
    """A joiner whose Welcome depends on an external PSK."""
    a, b, _ = _trio(world, first, second)
    world.share_psk()
    for committer, peer in ((a, second), (b, first)):
        joiner = world.joiner(peer)
        world.share_psk_with(joiner)
        values = [
            described(peer, "add", key_package=joiner.key_package),
            described(peer, "externalPSK", psk_id=PSK_ID),
        ]
        world.commit(committer, by_value=values, joiners=[joiner])


@_scenario
def psk_resumption(world: World, first: Peer, second: Peer) -> None:
    """The resumption PSK of an earlier epoch by value and by reference."""
    a, b, _ = _trio(world, first, second)
    for one, other in ((a, b), (b, a)):
        world.commit(one, by_value=[described(first, "resumptionPSK", epoch_id=2)])
        world.commit(other, [world.propose(one, "ResumptionPSKProposal", epoch_id=3)])


@_scenario
def extensions_value(world: World, first: Peer, second: Peer) -> None:
    """Group-context extensions by value."""
    a, b, _ = _trio(world, first, second)
    for committer, data in zip((a, b), _REQUIRED, strict=True):
        extensions = [_extension(first, _REQUIRED_CAPABILITIES, data)]
        change = described(first, "groupContextExtensions", extensions=extensions)
        world.commit(committer, by_value=[change])


@_scenario
def extensions_reference(world: World, first: Peer, second: Peer) -> None:
    """Group-context extensions by reference."""
    a, b, _ = _trio(world, first, second)
    for (one, other), data in zip(((a, b), (b, a)), _REQUIRED, strict=True):
        extensions = [_extension(first, _REQUIRED_CAPABILITIES, data)]
        change = world.propose(one, "GroupContextExtensionsProposal", extensions=extensions)
        world.commit(other, [change])


@_scenario
def extensions_private(world: World, first: Peer, second: Peer) -> None:
    """An extension type for private use in the group context."""
    extensions = [
        _extension(first, _REQUIRED_CAPABILITIES, _REQUIRED_PRIVATE),
        _extension(first, _PRIVATE_TYPE, b"data"),
    ]
    for peer in (first, second):
        # A peer that cannot have it says so in a group of its own, before others have it.
        alone = World(world.suite, world.way).create(peer)
        peer.GroupContextExtensionsProposal(state_id=alone.state, extensions=extensions)
    _, b, c = _trio(world, first, second)
    change = described(first, "groupContextExtensions", extensions=extensions)
    world.commit(b, by_value=[change])
    world.add(c, second)


@_scenario
def several_proposals(world: World, first: Peer, second: Peer) -> None:
    """One Commit of proposals by reference and by value: Update, Add, Remove, PSK."""
    a, b, c = _trio(world, first, second)
    (d,) = world.add(b, second)
    world.share_psk()
    joiner, other = world.joiner(second), world.joiner(first)
    for new in (joiner, other):
        world.share_psk_with(new)
    references = [
        world.propose(a, "UpdateProposal"),
        _add(world, b, joiner),
        world.propose(c, "RemoveProposal", removed_id=d.identity),
    ]
    values = [
        described(first, "add", key_package=other.key_package),
        described(first, "externalPSK", psk_id=PSK_ID),
    ]
    world.commit(world.now(c), references, values, joiners=[joiner, other], removed=[d])
    world.chat()


# -- from outside


@_scenario
def new_member_proposal(world: World, first: Peer, second: Peer) -> None:
    """A newcomer proposes itself, and a member commits it."""
    a, b, _ = _trio(world, first, second)
    for peer, committer in ((second, a), (first, b)):
        identity, member = world.name(peer), world.now(committer)
        # The request has no place for a tree beside the GroupInfo.
        info = member.peer.GroupInfo(state_id=member.state, external_tree=False)
        made = peer.NewMemberAddProposal(group_info=info.group_info, identity=identity)
        joiner = Joiner(peer, identity, made.transaction_id, b"")
        world.commit(committer, [made.proposal], joiners=[joiner])


def _with_signer(world: World, first: Peer, second: Peer) -> Callable[..., bytes]:
    """A trio with an external sender of the second peer; gives what lets it propose."""
    a, b, _ = _trio(world, first, second)
    signer = second.CreateExternalSigner(cipher_suite=world.suite, identity=b"signer")
    admit = world.propose(a, "AddExternalSigner", external_sender=signer.external_sender)
    world.commit(b, [admit])

    def proposes(kind: str, **fields: object) -> bytes:
        info = world.group_info(b)
        made: bytes = second.ExternalSignerProposal(
            signer_id=signer.signer_id,
            signer_index=0,
            group_info=info.group_info,
            ratchet_tree=info.ratchet_tree,
            description=described(second, kind, **fields),
        ).proposal
        return made

    return proposes


@_scenario
def external_sender_add_remove(world: World, first: Peer, second: Peer) -> None:
    """An external sender is admitted and proposes an Add and a Remove."""
    proposes = _with_signer(world, first, second)
    a, b, c = world.members
    joiner = world.joiner(first)
    world.commit(b, [proposes("add", key_package=joiner.key_package)], joiners=[joiner])
    world.commit(a, [proposes("remove", removed_id=c.identity)], removed=[c])


@_scenario
def external_sender_psk(world: World, first: Peer, second: Peer) -> None:
    """An external sender proposes an external PSK."""
    proposes = _with_signer(world, first, second)
    world.share_psk()
    for committer in list(world.members[:2]):
        world.commit(committer, [proposes("externalPSK", psk_id=PSK_ID)])


@_scenario
def external_sender_extensions(world: World, first: Peer, second: Peer) -> None:
    """An external sender proposes group-context extensions, its own right going with them."""
    proposes = _with_signer(world, first, second)
    for committer, data in zip(world.members[:1], _REQUIRED, strict=False):
        extensions = [_extension(first, _REQUIRED_CAPABILITIES, data)]
        world.commit(committer, [proposes("groupContextExtensions", extensions=extensions)])


@_scenario
def external_sender_reinit(world: World, first: Peer, second: Peer) -> None:
    """An external sender proposes to reinitialise, and the group does."""
    proposes = _with_signer(world, first, second)
    change = proposes("reinit", cipher_suite=_successor(world), group_id=b"successor")
    _reinitialise(world, world.members[0], change)


# -- successors


def _successor(world: World) -> int:
    return 2 if world.suite == 1 else 1


def _reinitialise(world: World, opener: Member, proposal: bytes) -> None:
    """A member commits the ReInit and opens the successor; all others follow."""
    opener = world.now(opener)
    others = [m for m in world.members if m.identity != opener.identity]
    commit = opener.peer.ReInitCommit(
        state_id=opener.state, by_reference=[proposal], external_tree=world.way.beside
    ).commit
    ended = opener.peer.HandlePendingReInitCommit(state_id=opener.state)
    handled = [
        m.peer.HandleReInitCommit(state_id=m.state, proposal=[proposal], commit=commit)
        for m in others
    ]
    if {each.epoch_authenticator for each in handled} != {ended.epoch_authenticator}:
        msg = "the epoch authenticators of the group's last epoch differ"
        raise DifferenceError(msg)
    opened = opener.peer.ReInitWelcome(
        reinit_id=ended.reinit_id,
        key_package=[each.key_package for each in handled],
        external_tree=world.way.beside,
    )
    members = [Member(opener.peer, opener.identity, opened.state_id)]
    for member, each in zip(others, handled, strict=True):
        state = member.peer.HandleReInitWelcome(
            reinit_id=each.reinit_id, welcome=opened.welcome, ratchet_tree=opened.ratchet_tree
        ).state_id
        members.append(Member(member.peer, member.identity, state))
    world.settle(members)
    world.commit(members[1])
    world.chat()


@_scenario
def reinit(world: World, first: Peer, second: Peer) -> None:
    """The group ends, and its successor, of another suite, is opened by the second peer."""
    a, b, _ = _trio(world, first, second)
    change = world.propose(
        a, "ReInitProposal", cipher_suite=_successor(world), group_id=b"successor"
    )
    _reinitialise(world, b, change)


@_scenario
def reinit_same_suite(world: World, first: Peer, second: Peer) -> None:
    """The same with the same suite and a required capability, opened by the first peer."""
    a, b, _ = _trio(world, first, second)
    extensions = [_extension(first, _REQUIRED_CAPABILITIES, _REQUIRED[0])]
    change = world.propose(
        b,
        "ReInitProposal",
        cipher_suite=world.suite,
        group_id=b"successor",
        extensions=extensions,
    )
    _reinitialise(world, a, change)


def _branch(world: World, opener: Member, others: Sequence[Member]) -> None:
    opener = world.now(opener)
    joiners = [world.joiner(m.peer, m.identity) for m in others]
    opened = opener.peer.CreateBranch(
        state_id=opener.state,
        group_id=b"branch",
        key_packages=[joiner.key_package for joiner in joiners],
        external_tree=world.way.beside,
    )
    members = [Member(opener.peer, opener.identity, opened.state_id)]
    for member, joiner in zip(others, joiners, strict=True):
        state = member.peer.HandleBranch(
            state_id=member.state,
            transaction_id=joiner.transaction,
            welcome=opened.welcome,
            ratchet_tree=opened.ratchet_tree,
        ).state_id
        members.append(Member(member.peer, member.identity, state))
    world.settle(members)
    world.commit(members[1])
    world.chat()


@_scenario
def branch(world: World, first: Peer, second: Peer) -> None:
    """The second peer's member opens a branch with everybody."""
    a, b, c = _trio(world, first, second)
    _branch(world, b, [a, c])


@_scenario
def branch_of_some(world: World, first: Peer, second: Peer) -> None:
    """The first peer's member opens a branch with one of two others."""
    a, b, _ = _trio(world, first, second)
    _branch(world, a, [world.now(b)])
