"""Vectors of whole groups: welcome and the three passive-client files (RFC 9420 §11, §12.4)."""

from __future__ import annotations

import os

from coterie.interop.vectors.kind import Case, Generated, Kind, Mismatch, expect
from coterie.interop.vectors.sources import NOW, SimulatedGroup, welcome_of
from coterie.mls.credential import AcceptAnything
from coterie.mls.crypto import Suite
from coterie.mls.extension import Extension
from coterie.mls.framing import MLSMessage
from coterie.mls.group import CommitOptions, Config, Group, Limits, StagedCommit
from coterie.mls.group.welcoming import open_welcome, read_welcome
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.hpke import RandomSource
from coterie.mls.key_package import KeyPackage, KeyPackageBundle
from coterie.mls.proposal import (
    Add,
    GroupContextExtensions,
    PreSharedKey,
    Proposal,
    Remove,
)
from coterie.mls.rules import Rule
from coterie.mls.tls import JSON
from coterie.mls.types import ExtensionType


def _key_package(case: Case) -> KeyPackage:
    body = MLSMessage.read(case.data("key_package")).body
    if not isinstance(body, KeyPackage):
        msg = f"key_package is a {type(body).__name__}"
        raise Mismatch(msg)
    return body


# -- welcome


def verify_welcome(case: Case) -> None:
    """A Welcome opened, its GroupInfo verified and its epoch confirmed."""
    suite, package = case.suite, _key_package(case)
    init_key = case.hpke_key("init_priv", suite)
    expect("init_key", init_key.public, package.init_key)
    # The vector leaves out the keys that only a member needs.
    unused = suite.generate_hpke_key(os.urandom), suite.generate_signature_key(os.urandom)
    welcome = read_welcome(MLSMessage.read(case.data("welcome")))
    opened = open_welcome(welcome, KeyPackageBundle(package, init_key, *unused), suite, _no_psks)
    opened.info.verify(suite, case.data("signer_pub"))
    context = opened.info.group_context
    secrets, _ = opened.joiner.epoch(context)
    confirmed, tag = context.confirmed_transcript_hash, opened.info.confirmation_tag
    suite.verify_mac(secrets.confirmation_key, confirmed, tag, rule=Rule.CONFIRMATION_TAG)


def _no_psks(psks: object) -> list[tuple[PreSharedKeyID, bytes]]:
    expect("pre-shared keys of the Welcome", psks, ())
    return []


def generate_welcome(suite: Suite, rng: RandomSource) -> Generated:
    """One case: the second member of a group."""
    group = SimulatedGroup(suite, rng)
    client = group.new_client()
    welcome = welcome_of(group.groups[0].commit([Proposal.of(Add(client.key_package))], now=NOW))
    case: dict[str, JSON] = {
        "cipher_suite": int(suite.cipher_suite),
        "init_priv": client.init_key.private_bytes().hex(),
        "signer_pub": group.groups[0].member(0).signature_key.hex(),
        "key_package": MLSMessage.of(client.key_package).encode().hex(),
        "welcome": welcome.encode().hex(),
    }
    return [case]


# -- passive-client-*


def verify_passive_client(case: Case) -> None:
    """A client joins by a Welcome and follows the group from one epoch to the next."""
    bundle = _bundle(case)
    psks = {psk.data("psk_id"): psk.data("psk") for psk in case.cases("external_psks")}
    config = Config(
        AcceptAnything(), Limits(max_lifetime=None), psk=lambda psk: psks.get(psk.psk_id or b"")
    )
    welcome = MLSMessage.read(case.data("welcome"))
    group = Group.join(welcome, bundle, config, tree=case.data_or_none("ratchet_tree"))
    wanted = case.data("initial_epoch_authenticator")
    expect("initial_epoch_authenticator", group.epoch_authenticator, wanted)
    for number, epoch in enumerate(case.cases("epochs")):
        for message in epoch.datas("proposals"):
            group.receive(message or b"")
        staged = group.receive(epoch.data("commit"))
        if not isinstance(staged, StagedCommit):
            msg = f"epochs[{number}].commit is not a Commit"
            raise Mismatch(msg)
        group.adopt(staged)
        wanted = epoch.data("epoch_authenticator")
        expect(f"epochs[{number}].epoch_authenticator", group.epoch_authenticator, wanted)


def _bundle(case: Case) -> KeyPackageBundle:
    suite, package = case.suite, _key_package(case)
    init_key = case.hpke_key("init_priv", suite)
    encryption_key = case.hpke_key("encryption_priv", suite)
    signature_key = case.signature_key("signature_priv", suite)
    expect("init_key", init_key.public, package.init_key)
    expect("encryption_key", encryption_key.public, package.leaf_node.encryption_key)
    expect("signature_key", signature_key.public, package.leaf_node.signature_key)
    return KeyPackageBundle(package, init_key, encryption_key, signature_key)


class _Passenger:
    """A client that joins a simulated group, and the record of what it is sent."""

    def __init__(
        self, group: SimulatedGroup, by: int, psks: tuple[PreSharedKeyID, ...], *, inside: bool
    ) -> None:
        self.group = group
        client = group.new_client()
        proposals = [Proposal.of(Add(client.key_package))]
        proposals += [Proposal.of(PreSharedKey(psk)) for psk in psks]
        sent = welcome_of(group.commit(by, proposals, CommitOptions(tree_inside=inside)))
        tree = group.groups[by].tree.encode()
        external: list[JSON] = [
            {"psk_id": psk_id.hex(), "psk": psk.hex()} for psk_id, psk in group.psks.items()
        ]
        joined = Group.join(MLSMessage.read(sent.encode()), client, group.config, tree=tree)
        self.leaf = joined.own_leaf
        self.epochs: list[JSON] = []
        self.case: dict[str, JSON] = {
            "cipher_suite": int(group.suite.cipher_suite),
            "external_psks": external,
            "key_package": MLSMessage.of(client.key_package).encode().hex(),
            "signature_priv": client.signature_key.private_bytes().hex(),
            "encryption_priv": client.encryption_key.private_bytes().hex(),
            "init_priv": client.init_key.private_bytes().hex(),
            "welcome": sent.encode().hex(),
            "ratchet_tree": None if inside else tree.hex(),
            "initial_epoch_authenticator": joined.epoch_authenticator.hex(),
            "epochs": self.epochs,
        }

    def step(
        self,
        by: int,
        *,
        by_value: tuple[Proposal, ...] = (),
        sent: tuple[tuple[int, Proposal | None], ...] = (),
        path: bool = True,
    ) -> None:
        """One epoch: proposals that members send (None for an own Update), then the Commit of `by`."""
        group, messages = self.group, []
        for sender_index, proposal in sent:
            sender = group.groups[sender_index]
            message = sender.propose(proposal, now=NOW) if proposal else sender.propose_update()
            group.deliver(message, sender)
            messages.append(message)
        self._record(messages, group.commit(by, by_value, CommitOptions(path=path)).message)

    def _record(self, proposals: list[MLSMessage], commit: MLSMessage) -> None:
        sent: list[JSON] = [message.encode().hex() for message in proposals]
        self.epochs.append(
            {
                "proposals": sent,
                "commit": commit.encode().hex(),
                "epoch_authenticator": self.group.groups[0].epoch_authenticator.hex(),
            }
        )


def _psk_ids(group: SimulatedGroup) -> tuple[PreSharedKeyID, ...]:
    nonce = group.rng(group.suite.hash_length)
    return tuple(PreSharedKeyID.external(psk_id, nonce) for psk_id in group.psks)


def generate_passive_client_welcome(
    suite: Suite, rng: RandomSource, *, grease: bool = True
) -> Generated:
    """Joining with the tree inside and beside the Welcome, with and without pre-shared keys.

    Without `grease` nobody lists or sends values of GREASE types (§13.5): some implementations refuse them.
    """
    made: Generated = []
    for others, psks, inside in ((0, 0, True), (0, 2, False), (4, 0, False), (5, 1, True)):
        group = SimulatedGroup(suite, rng, psks=psks, grease=grease)
        if others:
            group.add(others)
        made.append(_Passenger(group, others // 2, _psk_ids(group), inside=inside).case)
    return made


def generate_passive_client_handling_commit(
    suite: Suite, rng: RandomSource, *, grease: bool = True
) -> Generated:
    """Every kind of proposal by value and by reference, in public and in private messages."""
    made: Generated = []
    for private in (False, True):
        made += _handling(suite, rng, private=private, grease=grease)
    return made


def _handling(suite: Suite, rng: RandomSource, *, private: bool, grease: bool) -> Generated:
    group = SimulatedGroup(suite, rng, private=private, psks=1, grease=grease)
    group.add(4)
    passenger = _Passenger(group, 0, (), inside=private)

    def add() -> Proposal:
        return Proposal.of(Add(group.new_client().key_package))

    def psk() -> Proposal:
        return Proposal.of(PreSharedKey(_psk_ids(group)[0]))

    def resumption() -> Proposal:
        return Proposal.of(PreSharedKey(group.groups[1].application_psk(group.groups[1].epoch)))

    extension = Extension(ExtensionType.EXTERNAL_SENDERS, b"\x00")
    extensions = Proposal.of(GroupContextExtensions((extension,)))
    passenger.step(0)
    passenger.step(1, by_value=(add(),), path=False)
    passenger.step(1, by_value=(add(), psk()))
    passenger.step(2, sent=((0, None), (1, add())))
    passenger.step(0, by_value=(resumption(),), sent=((2, psk()), (1, extensions)))
    passenger.step(1, by_value=(Proposal.of(Remove(group.groups[3].own_leaf)),))
    passenger.step(0, sent=((1, Proposal.of(Remove(group.groups[2].own_leaf))),))
    passenger.step(1, by_value=(Proposal.of(GroupContextExtensions(())),))
    return [passenger.case]


def generate_passive_client_random(
    suite: Suite, rng: RandomSource, *, grease: bool = True
) -> Generated:
    """Thirty epochs of what the random source says."""
    group = SimulatedGroup(suite, rng, grease=grease)
    group.add(3)
    passenger = _Passenger(group, 0, (), inside=True)
    for _ in range(30):
        _random_step(group, passenger, rng)
    return [passenger.case]


def _random_step(group: SimulatedGroup, passenger: _Passenger, rng: RandomSource) -> None:
    count = len(group.groups)
    by, other, choice = rng(1)[0] % count, rng(1)[0] % count, rng(1)[0] % 4
    if choice == 0 or count < 3:
        passenger.step(by, by_value=(Proposal.of(Add(group.new_client().key_package)),))
    elif choice == 1 and other != by:
        removed = group.groups[other].own_leaf
        passenger.step(by, by_value=(Proposal.of(Remove(removed)),))
    elif choice == 2 and other != by:
        passenger.step(by, sent=((other, None),))
    else:
        passenger.step(by)


_PASSIVE = frozenset({"cipher_suite", "external_psks", "signature_priv", "welcome", "epochs"})

WELCOME = Kind(
    "welcome",
    frozenset({"cipher_suite", "init_priv", "signer_pub", "welcome"}),
    verify_welcome,
    generate_welcome,
)
PASSIVE_CLIENT_WELCOME = Kind(
    "passive-client-welcome", _PASSIVE, verify_passive_client, generate_passive_client_welcome
)
PASSIVE_CLIENT_HANDLING_COMMIT = Kind(
    "passive-client-handling-commit",
    _PASSIVE,
    verify_passive_client,
    generate_passive_client_handling_commit,
)
PASSIVE_CLIENT_RANDOM = Kind(
    "passive-client-random", _PASSIVE, verify_passive_client, generate_passive_client_random
)
