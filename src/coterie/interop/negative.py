"""Negative vectors: what a client must refuse, and that refusing changed nothing (format: docs/negative-vectors.md).

A case is a start state, given as in the passive-client files (a key package with its private keys and a Welcome), and
violations, each of which is tried from that state. Refusing means raising an error that names the rule of the vector.
Afterwards the client must process the case's valid Commit as if nothing had happened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from coterie.errors import CoterieError, VerificationError
from coterie.interop.vectors.kind import Case, Kind, Mismatch, expect
from coterie.mls.credential import Credential
from coterie.mls.crypto import Suite, suite_of
from coterie.mls.extension import Capabilities, capabilities
from coterie.mls.framing import MLSMessage
from coterie.mls.group import Config, Group, Limits, StagedCommit
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.key_package import KeyPackage, KeyPackageBundle
from coterie.mls.secret_tree import RatchetKind
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import ExtensionType, ProposalType
from coterie.mls.validation import CustomProposal

EXTENSION = ExtensionType(0xF001)
"""An extension type that every client of the vectors supports."""
PROPOSAL = ProposalType(0xF002)
"""A proposal type that every client of the vectors supports; it needs no path."""
UNSUPPORTED_PROPOSAL = ProposalType(0xF003)
"""A proposal type that clients could read, but none of them lists."""


class Names:
    """The Authentication Service of the vectors, over the bytes of credentials.

    Up to "#" stands the client's name. Names that start with "!" are refused, and so are successors under another name.
    It names no rule when it refuses.
    """

    def authenticate(
        self, credential: Credential, signature_key: bytes, *, now: int | None
    ) -> None:
        """Raises `VerificationError` for a name that nobody vouches for."""
        del signature_key, now
        if credential.identity.startswith(b"!"):
            msg = "nobody vouches for this name"
            raise VerificationError(msg)

    def client_id(self, credential: Credential) -> bytes:
        """The client's name."""
        return credential.identity.split(b"#")[0]

    def valid_successor(self, old: Credential, new: Credential) -> None:
        """Raises `VerificationError` unless both have one name."""
        if self.client_id(old) != self.client_id(new):
            msg = "the new credential has another client's name"
            raise VerificationError(msg)


def verify_negative(case: Case) -> None:
    """Tries every violation of a case; raises `Mismatch` for one that is not refused by its rule."""
    runner = _Runner(case)
    for number, violation in enumerate(case.cases("violations")):
        try:
            runner.run(violation)
        except CoterieError as error:
            msg = f"violation {number} ({violation.text('about')}): {error}"
            raise Mismatch(msg) from error


class _Runner:
    def __init__(self, case: Case) -> None:
        self.suite = case.suite
        self.now = case.number("now")
        psks = {psk.data("psk_id"): psk.data("psk") for psk in case.cases("external_psks")}
        self.config = _config(psks)
        self.then = case.case("then")
        start = case.case("start")
        group = Group.join(MLSMessage.read(start.data("welcome")), _bundle(start), self.config)
        self.store = dict(group.save().puts)

    def run(self, violation: Case) -> None:
        """Tries one violation from the start state."""
        operation = violation.text("operation")
        if operation == "receive":
            self._receive(violation)
        elif operation == "join":
            self._join(violation)
        elif operation == "join_external":
            self._join_external(violation)
        else:
            msg = f"there is no operation {operation!r}"
            raise Mismatch(msg)

    def _client(self, before: Iterable[Case], config: Config) -> tuple[Group, bool]:
        """The client after some messages, and whether it is still in the epoch of the start."""
        entries = {k: v for k, v in self.store.items() if k[:2] not in {b"n/", b"i/"}}
        group, same = Group.load(entries, self.store, config), True
        for message in before:
            received = group.receive(message.data("message"), now=self.now)
            if message.number("adopt", 2):
                if not isinstance(received, StagedCommit):
                    msg = "a message to adopt is not a Commit"
                    raise Mismatch(msg)
                group.adopt(received, now=self.now)
                same = False
        group.save()
        return group, same

    def _receive(self, violation: Case) -> None:
        limits = Limits(grease=False, max_proposals=violation.number("max_proposals"))
        config = replace(self.config, limits=limits)
        (group, same), (twin, _) = (
            self._client(violation.cases("before"), config) for _ in range(2)
        )
        refused(
            violation.text("rule"), lambda: group.receive(violation.data("message"), now=self.now)
        )
        for consumed in violation.cases("consumes"):
            _consume(twin, consumed, self.now)
        expect("what the client stores afterwards", group.save(), twin.save())
        if same:
            staged = group.receive(self.then.data("commit"), now=self.now)
            if not isinstance(staged, StagedCommit) or staged.next is None:
                msg = "the valid Commit is not taken afterwards"
                raise Mismatch(msg)
            wanted = self.then.data("epoch_authenticator")
            expect("epoch_authenticator", staged.next.epoch_authenticator, wanted)

    def _join(self, violation: Case) -> None:
        old = None
        if violation.number("continues", 2):
            old = self._client(violation.cases("before"), self.config)[0]
        bundle = _bundle(violation)
        welcome = MLSMessage.read(violation.data("welcome"))
        refused(
            violation.text("rule"),
            lambda: Group.join(
                welcome,
                bundle,
                self.config,
                tree=violation.data_or_none("ratchet_tree"),
                groups=_groups(violation),
                continues=old,
            ),
        )

    def _join_external(self, violation: Case) -> None:
        key = violation.signature_key("signature_priv", self.suite)
        info = MLSMessage.read(violation.data("group_info"))
        own = supported(self.suite)
        refused(
            violation.text("rule"),
            lambda: Group.join_external(
                info,
                key,
                Credential.basic(violation.data("identity")),
                own,
                self.config,
                tree=violation.data_or_none("ratchet_tree"),
                groups=_groups(violation),
                now=self.now,
            ),
        )


def supported(suite: Suite) -> Capabilities:
    """What every client of the vectors supports."""
    return capabilities(
        cipher_suites=[suite.cipher_suite], extensions=[EXTENSION], proposals=[PROPOSAL]
    )


def _config(psks: Mapping[bytes, bytes]) -> Config:
    def find(psk: PreSharedKeyID) -> bytes | None:
        return None if psk.psk_id is None else psks.get(psk.psk_id)

    kinds = (int(PROPOSAL), int(UNSUPPORTED_PROPOSAL))
    return Config(
        Names(),
        Limits(grease=False),
        custom_proposals={kind: CustomProposal(path_required=False) for kind in kinds},
        psk=find,
        rng=os.urandom,
    )


def _bundle(case: Case) -> KeyPackageBundle:
    """A key package with its private keys; its suite may be another than the start's, for a branch."""
    package = KeyPackage.decode(case.data("key_package"))
    suite = suite_of(package.cipher_suite)
    return KeyPackageBundle(
        package,
        case.hpke_key("init_priv", suite),
        case.hpke_key("encryption_priv", suite),
        case.signature_key("signature_priv", suite),
    )


def _groups(violation: Case) -> frozenset[bytes]:
    return frozenset(group for group in violation.datas("groups") if group is not None)


def _consume(group: Group, consumed: Case, now: int) -> None:
    keys = group._keys.of_epoch(group.epoch)  # noqa: SLF001 - the one place that looks inside
    if keys is not None:
        kind = RatchetKind[consumed.text("ratchet").upper()]
        leaf, generation = LeafIndex(consumed.number("leaf")), consumed.number("generation")
        keys.secret_tree.consume(keys.secret_tree.find(leaf, kind, generation), now)


def refused(rule: str, call: Callable[[], object]) -> None:
    """Raises `Mismatch` unless the call raises an error that names the rule."""
    try:
        call()
    except CoterieError as error:
        expect("the rule that was broken", str(error.rule), rule)
        return
    msg = f"accepted, though it breaks {rule}"
    raise Mismatch(msg)


NEGATIVE = Kind("negative", frozenset({"start", "then", "violations"}), verify_negative)
