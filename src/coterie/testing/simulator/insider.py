"""An insider: a member who has every key of its epochs and follows no rule of the protocol.

Between its attacks it takes part like everybody else, so that it stays in the group and has something to attack with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coterie.client import box
from coterie.client.epoch_keys import EpochKeys
from coterie.client.line import Line, staged_exporter
from coterie.errors import CoterieError
from coterie.mls.credential import Credential
from coterie.mls.framing import MLSMessage
from coterie.mls.group import CommitOptions, PendingCommit
from coterie.mls.group import commit as commit_module
from coterie.mls.key_package import create_key_package
from coterie.mls.leaf_node import Lifetime
from coterie.mls.proposal import Add, Proposal, Remove
from coterie.mls.ratchet_tree import HPKECiphertext
from coterie.mls.treekem import seal_path as real_seal_path
from coterie.testing.simulator.device import Device
from coterie.testing.simulator.world import World
from coterie.transport import api
from coterie.transport.refusal import Refused

OPTIONS = CommitOptions(members_per_welcome=1, external_pub=False, pending=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Forgery:
    """A bundle as its maker wants it; what is None is what an honest member would put there."""

    commit: bytes
    next: api.Access
    leaf: int | None = None
    signature: bytes | None = None
    commit_hash: bytes | None = None
    head: api.Receipt | None = None


class Insider:
    """One dishonest member; `label` names its device."""

    def __init__(self, world: World, label: str) -> None:
        self.world = world
        self.device: Device = world.devices[label]
        self.requests: dict[bytes, api.RequestContent] = {}
        """The requests that it read in boxes, by signature."""
        self.attacks: tuple[Callable[[random.Random], None], ...] = (
            self.takes_part,
            self.junk_bundle,
            self.names_another,
            self.invalid_commit,
            self.two_candidates,
            self.wrong_access,
            self.path_for_all_but_one,
            self.unknown_reference,
            self.junk_message,
            self.forged_proposal,
            self.adds_what_expires,
            self.forges_return,
            self.replays_return,
            self.commits_over_junk,
        )

    def __call__(self, choice: int, rng: random.Random) -> None:
        """Does one of its attacks, if it is in the group."""
        if self.device.status == "active":
            try:
                self.attacks[choice % len(self.attacks)](rng)
            finally:
                self.world.observer.forging = False

    # -- what it has

    def line(self) -> Line | None:
        """Its place in the log, as new as can be."""
        self.device.sync()
        self.world.observer.forging = True
        line = self.device.line() if self.device.status == "active" else None
        if line is not None and line.group.pending_commit is not None:
            line.group.drop_pending()
        return line

    def access(self, rng: random.Random) -> api.Access:
        """An access that follows from nothing."""
        seed = Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))
        public = seed.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return api.Access(public, rng.randbytes(32), rng.randbytes(32))

    def post(self, append: api.Append) -> bool:
        """Appends an entry, whatever it is; whether the service took it."""
        self.world.observer.by_outsiders.add(append.entry.hash())
        try:
            self.world.ask(self.device.label, "logs/append", append, self.device.side)
        except Refused:
            return False
        return True

    def bundle(self, line: Line, forgery: Forgery, rng: random.Random) -> api.Append:
        """A bundle with a manifest that fits, but for what is forged."""
        last, head = self._last_candidate(line), forgery.head or line.state.head
        header = api.EntryHeader(
            api.DeliveryVersion.COTERIE1,
            api.EntryKind.BUNDLE,
            line.state.epoch,
            rng.randbytes(32),
            api.Bundle(last, forgery.next, ()),
            None,
        )
        tbs = api.ManifestTBS(
            line.state.epoch,
            header.id,
            last,
            forgery.next,
            forgery.commit_hash or api.sha256(forgery.commit),
            api.ZERO32,
            head.hash(),
            line.group.own_leaf if forgery.leaf is None else forgery.leaf,
        )
        signature = forgery.signature or line.group.sign(api.MANIFEST_LABEL.decode(), tbs.encode())
        content = api.CommitContent(api.Manifest(tbs, signature), forgery.commit)
        sealed = api.SealedContent(api.ContentKind.COMMIT, head, content.encode())
        return line.keys.append(header, sealed)

    def _last_candidate(self, line: Line) -> bytes:
        """The service's newest candidate: whoever asks is told it with the lost race."""
        found = self.world.service.on_log(
            self.device.side,
            lambda tx: tx.newest_candidate(_known(tx.epoch(line.state.epoch))),
        )
        return api.ZERO32 if found is None else found.receipt.hash()

    def commit(
        self, line: Line, proposals: Sequence[Proposal] = ()
    ) -> tuple[PendingCommit, api.Access]:
        """A valid Commit, and the access that follows from it."""
        pending = line.group.commit(proposals, now=self.world.clock(), options=OPTIONS)
        if pending.next is None:
            raise Refused(api.ErrorCode.MALFORMED, "a Commit that removes its maker")
        keys = EpochKeys.derive(staged_exporter(pending.next), line.binding.log_id)
        return pending, keys.access

    # -- what it does

    def takes_part(self, rng: random.Random) -> None:
        """Behaves."""
        del rng
        self.device.sync()

    def junk_bundle(self, rng: random.Random) -> None:
        """A bundle that nobody can open: void (D-VAL-3)."""
        line = self.line()
        if line is None:
            return
        good = self.bundle(line, Forgery(rng.randbytes(40), self.access(rng)), rng)
        entry = good.entry.replace(sealed=rng.randbytes(len(good.entry.sealed)))
        self.post(good.replace(entry=entry, signature=_sign(line, entry)))

    def commits_over_junk(self, rng: random.Random) -> None:
        """Junk, and a valid Commit over it, by who says that it has read nothing: adopted (D-REC-10)."""
        line = self.line()
        if line is None:
            return
        pending, access = self.commit(line)
        self.post(self.bundle(line, Forgery(rng.randbytes(40), self.access(rng), 1 << 20), rng))
        good = Forgery(pending.message.encode(), access, head=line.state.opening)
        self.post(self.bundle(line, good, rng))

    def names_another(self, rng: random.Random) -> None:
        """A bundle under the keys that all share, whose manifest names another member: void (D-VAL-3)."""
        line = self.line()
        if line is None:
            return
        others = [int(m.leaf) for m in line.group.members() if m.leaf != line.group.own_leaf]
        victim = others[rng.randrange(len(others))]
        if rng.random() < 0.5:
            self.post(self._reused_manifest(line, victim, rng))
            return
        forgery = Forgery(rng.randbytes(40), self.access(rng), victim, rng.randbytes(64))
        self.post(self.bundle(line, forgery, rng))

    def _reused_manifest(self, line: Line, victim: int, rng: random.Random) -> api.Append:
        """A manifest that the victim has signed, if one was seen, over another Commit."""
        for append in reversed(self.world.appends):
            if append.entry.header.epoch != line.state.epoch or append.entry.header.bundle is None:
                continue
            try:
                opened = line.keys.open(append.entry)
                content = api.CommitContent.decode(opened.content)
            except CoterieError:
                continue
            if content.manifest.tbs.leaf_index == victim:
                content = content.replace(commit=rng.randbytes(40))
                return line.keys.append(
                    append.entry.header, opened.replace(content=content.encode(), padding=b"")
                )
        return self.bundle(
            line, Forgery(rng.randbytes(40), self.access(rng), victim, rng.randbytes(64)), rng
        )

    def invalid_commit(self, rng: random.Random) -> None:
        """Its own manifest over a Commit that breaks a rule: refused (D-VAL-5, D-VAL-8)."""
        line = self.line()
        if line is not None:
            self.post(self._invalid(line, rng))

    def _invalid(self, line: Line, rng: random.Random) -> api.Append:
        pending, access = self.commit(line)
        data = bytearray(pending.message.encode())
        data[rng.randrange(len(data) // 2, len(data))] ^= 1
        return self.bundle(line, Forgery(bytes(data), access), rng)

    def two_candidates(self, rng: random.Random) -> None:
        """An invalid candidate and at once another one: the second is void (D-VAL-4)."""
        line = self.line()
        if line is None:
            return
        if self.post(self._invalid(line, rng)):
            line.group.drop_pending()
            pending, access = self.commit(line)
            self.post(self.bundle(line, Forgery(pending.message.encode(), access), rng))

    def wrong_access(self, rng: random.Random) -> None:
        """A valid Commit that claims another access than follows from it (D-COR-1)."""
        line = self.line()
        if line is not None:
            pending, _ = self.commit(line)
            self.post(self.bundle(line, Forgery(pending.message.encode(), self.access(rng)), rng))

    def path_for_all_but_one(self, rng: random.Random) -> None:
        """A Commit whose path one member, or some, cannot open: a private failure (D-VAL-9)."""
        line = self.line()
        if line is None:
            return
        self.world.hopeless = True
        with mock.patch.object(commit_module, "seal_path", spoiling(rng)):
            pending, access = self.commit(line)
        self.post(self.bundle(line, Forgery(pending.message.encode(), access), rng))

    def unknown_reference(self, rng: random.Random) -> None:
        """A Commit that refers to a proposal that stands nowhere (D-VAL-7)."""
        line = self.line()
        if line is None:
            return
        others = [m.leaf for m in line.group.members() if m.leaf != line.group.own_leaf]
        line.group.propose_remove(others[rng.randrange(len(others))])
        pending = line.group.commit((), now=self.world.clock(), options=CommitOptions())
        self.post(self.bundle(line, Forgery(pending.message.encode(), self.access(rng)), rng))

    def junk_message(self, rng: random.Random) -> None:
        """A message entry that means nothing: void (D-ENT-11)."""
        line = self.line()
        if line is None:
            return
        good = line.message(api.ContentKind.APPLICATION, line.group.encrypt(b"junk"))
        entry = good.entry.replace(sealed=rng.randbytes(256))
        self.post(good.replace(entry=entry, signature=_sign(line, entry)))

    def forged_proposal(self, rng: random.Random) -> None:
        """A proposal that says it is another's, under the keys that all share: void (D-ENT-11)."""
        line = self.line()
        if line is None:
            return
        others = [m.leaf for m in line.group.members() if m.leaf != line.group.own_leaf]
        victim = others[rng.randrange(len(others))]
        message = line.group.propose(Proposal.of(Remove(victim)))
        body: Any = message.body
        sender = body.content.sender.replace(leaf_index=victim)
        forged = MLSMessage.of(body.replace(content=body.content.replace(sender=sender)))
        self.post(line.message(api.ContentKind.PROPOSAL, forged))

    def adds_what_expires(self, rng: random.Random) -> None:
        """A Commit that adds a client whose key package is valid for a minute: valid for ever (D-VAL-6)."""
        line = self.line()
        if line is None:
            return
        suite, now = line.group.suite, self.world.clock()
        key = suite.generate_signature_key(rng.randbytes)
        made = create_key_package(
            suite,
            key,
            Credential.basic(b"x%d/x" % rng.randrange(1 << 40)),
            self.device.identity.capabilities(),
            Lifetime(now - 1, now + 60),
            rng=rng.randbytes,
        )
        pending, access = self.commit(line, [Proposal.of(Add(made.key_package))])
        self.post(self.bundle(line, Forgery(pending.message.encode(), access), rng))

    def forges_return(self, rng: random.Random) -> None:
        """Asks in another's place to be added again, with a package out of the directory: dropped (D-BOX-10)."""
        line = self.line()
        if line is None:
            return
        others = [m for m in line.group.members() if m.leaf != line.group.own_leaf]
        victim = others[rng.randrange(len(others))]
        user = self.device.identity.user_of_credential(victim.credential)
        claim = api.Claim(
            api.DeliveryVersion.COTERIE1, user.encode(), (line.group.context.cipher_suite,)
        )
        try:
            claimed: Any = self.world.ask(self.device.label, "directory/claim", claim)
        except Refused:
            return
        tbs = api.RequestTBS(
            line.binding.log_id,
            api.RequestKind.RETURN,
            claimed.packages[0].key_package,
            rng.randbytes(32),
            self.world.clock(),
            api.Replaced(victim.leaf, api.sha256(victim.node.encode())),
        )
        own = box.signed_request(self.device.identity.new_package(self.world.clock()), tbs)
        self._ask(line, own)

    def replays_return(self, rng: random.Random) -> None:
        """Asks once more what another asked before: dropped (D-BOX-7)."""
        line = self.line()
        if line is None:
            return
        vault = self.device.client.vault
        boxes = {line.state.epoch: bytes(line.keys.box_seed), **vault.boxes(self.world.group_id)}
        read = api.ReadBox(line.binding.log_id, line.state.epoch, bytes(line.keys.read_token), 0)
        try:
            found: Any = self.world.ask(self.device.label, "boxes/read", read, self.device.side)
        except Refused:
            return
        for item in found.items[-20:]:
            request = box.open_request(line, boxes.get(item.epoch), item)
            if request is not None:
                self.requests.setdefault(request.signature, request)
        if self.requests:
            asked = list(self.requests.values())
            self._ask(line, asked[rng.randrange(len(asked))].replace(padding=b""))

    def _ask(self, line: Line, content: api.RequestContent) -> None:
        post = box.return_request(line, content)
        with contextlib.suppress(Refused):
            self.world.ask(self.device.label, "boxes/post", post, self.device.side)

    def floods(self, rng: random.Random) -> None:
        """As many bundles as its rate lets through."""
        self.world.observer.forging = True
        for _ in range(2):
            line = self.device.line()
            if line is None or self.device.status != "active":
                break
            forgery = Forgery(rng.randbytes(40), self.access(rng), 0, rng.randbytes(64))
            if not self.post(self.bundle(line, forgery, rng)):
                break
        self.world.observer.forging = False


def _sign(line: Line, entry: api.Entry) -> bytes:
    return line.keys.sign(api.append_to_be_signed(entry.hash()))


def _known(epoch: Any) -> Any:  # noqa: ANN401 - an Epoch, which the member's line names
    if epoch is None:
        raise Refused(api.ErrorCode.UNKNOWN_EPOCH, "the epoch is gone")
    return epoch


def spoiling(rng: random.Random, share: float = 0.4) -> Callable[..., Any]:
    """`seal_path` that spoils a share of the path secrets it seals."""

    def seal_path(*args: Any) -> Any:  # noqa: ANN401 - what the real one takes and gives
        nodes = []
        for node in real_seal_path(*args):
            sealed = tuple(
                HPKECiphertext(c.kem_output, bytes(b ^ 1 for b in c.ciphertext))
                if rng.random() < share
                else c
                for c in node.encrypted_path_secret
            )
            nodes.append(node.replace(encrypted_path_secret=sealed))
        return tuple(nodes)

    return seal_path
