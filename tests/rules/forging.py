"""A forging member: it holds a member's keys, signs and encrypts correctly, and checks nothing of what it says.

Built from the lower half of the core (structs, key schedule, tree operations) and not from `Group`, whose own checks
would get in the way. Whatever is changed before signing is signed and sealed as it is: what arrives is wrong in exactly
the place that the caller chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coterie.mls.crypto import SignaturePrivateKey, Suite
from coterie.mls.extension import Extension
from coterie.mls.framing import (
    FramedContent,
    FramedContentAuthData,
    MLSMessage,
    PrivateMessage,
    PublicMessage,
    confirmed_transcript_hash,
    content_to_be_signed,
)
from coterie.mls.group import Group
from coterie.mls.group_context import GroupContext, PreSharedKeyID
from coterie.mls.hpke import HPKEPrivateKey, RandomSource
from coterie.mls.key_package import KeyPackage, KeyPackageBundle
from coterie.mls.key_schedule import (
    EpochSecrets,
    Joiner,
    confirmation_tag,
    external_init_seal,
    external_key_pair,
    psk_secret,
)
from coterie.mls.leaf_node import LeafNode, LeafNodeTBS
from coterie.mls.proposal import (
    Add,
    Commit,
    ExternalInit,
    GroupContextExtensions,
    PreSharedKey,
    Proposal,
    ProposalOrRef,
    Remove,
    Update,
)
from coterie.mls.ratchet_tree import (
    HPKECiphertext,
    ParentNode,
    RatchetTree,
    UnverifiedTree,
    UpdatePath,
    UpdatePathNode,
)
from coterie.mls.secret import Secret
from coterie.mls.secret_tree import RatchetKind
from coterie.mls.tls import encode_opaque
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import (
    CipherSuite,
    ContentType,
    ExtensionType,
    LeafNodeSource,
    ProposalOrRefType,
    Sender,
    SenderType,
    WireFormat,
)
from coterie.mls.welcome import (
    EncryptedGroupSecrets,
    GroupInfo,
    GroupInfoTBS,
    GroupSecrets,
    PathSecret,
    Welcome,
)

PUBLIC, PRIVATE = WireFormat.MLS_PUBLIC_MESSAGE, WireFormat.MLS_PRIVATE_MESSAGE
PSK = b"a key of thirty-two bytes, shared"
Body = bytes | Proposal | Commit
_KINDS = {
    bytes: ContentType.APPLICATION,
    Proposal: ContentType.PROPOSAL,
    Commit: ContentType.COMMIT,
}
Generation = tuple[LeafIndex, RatchetKind, int]


@dataclass(frozen=True)
class Referred:
    """A proposal that a Commit names by its reference."""

    reference: bytes
    proposal: Proposal
    sender: LeafIndex | None


@dataclass(frozen=True)
class Sent:
    """Bytes to be received, and the generation under which they were sealed, if they were."""

    data: bytes
    generation: Generation | None = None


@dataclass(frozen=True)
class ForgedEpoch:
    """The epoch that a forged Commit begins: what a Welcome to it needs."""

    context: GroupContext
    tree: RatchetTree
    joiner: Joiner
    secrets: EpochSecrets
    confirmation_tag: bytes
    new_leaves: tuple[LeafIndex, ...]
    path_secrets: Mapping[int, Secret]
    """By level."""


@dataclass
class PathChanges:
    """What is wrong with a path; each is applied before signing and sealing."""

    leaf: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the LeafNodeTBS."""
    leaf_key: HPKEPrivateKey | None = None
    signature_key: SignaturePrivateKey | None = None
    leaf_signer: SignaturePrivateKey | None = None
    leaf_index: int | None = None
    """The leaf index under the leaf's signature."""
    public_keys: Mapping[int, bytes] = field(default_factory=dict)
    """Other public keys, by position on the path."""
    nodes: Callable[[tuple[UpdatePathNode, ...]], tuple[UpdatePathNode, ...]] | None = None
    secrets: Mapping[int, bytes] = field(default_factory=dict)
    """What is sealed instead of the path secret, by position on the path."""
    parent_hash: bytes | None = None
    first_secret: bytes | None = None
    """The path secret from which all others follow."""


@dataclass(frozen=True)
class _Applied:
    tree: RatchetTree
    extensions: tuple[Extension, ...]
    new_leaves: tuple[LeafIndex, ...]
    psks: tuple[PreSharedKeyID, ...]


@dataclass(frozen=True)
class _Path:
    update: UpdatePath
    tree: RatchetTree
    commit_secret: Secret
    path_secrets: Mapping[int, Secret]


class Forger:
    """Speaks for the member whose group it is given; `framing` is how it sends proposals and Commits."""

    def __init__(self, group: Group, rng: RandomSource, framing: WireFormat = PRIVATE) -> None:
        self.group = group
        self.rng = rng
        self.framing = framing
        self.suite: Suite = group.suite
        self.context = group.context
        self.epoch = group._epoch
        self.leaf = group.own_leaf
        self.me = Sender(SenderType.MEMBER, self.leaf)

    # -- framing

    def content(self, body: Body, **changes: Any) -> FramedContent:
        """Content of this member, with other fields where `changes` says so."""
        kind = next(kind for cls, kind in _KINDS.items() if isinstance(body, cls))
        fields = {
            "group_id": self.context.group_id,
            "epoch": self.context.epoch,
            "sender": self.me,
            "authenticated_data": b"",
            "content_type": kind,
            "body": body,
            **changes,
        }
        return FramedContent(**fields)

    def sign(
        self,
        content: FramedContent,
        wire_format: WireFormat,
        key: SignaturePrivateKey | None = None,
        tag: bytes | None = None,
    ) -> FramedContentAuthData:
        """The signature by this member's key, or another one, and a confirmation tag."""
        tbs = content_to_be_signed(wire_format, content, self.context)
        key = key or self.epoch.signature_key
        signature = self.suite.sign_with_label(key, "FramedContentTBS", tbs)
        if tag is None and content.content_type == ContentType.COMMIT:
            tag = bytes(self.suite.hash_length)
        return FramedContentAuthData(signature, tag)

    def send(
        self,
        content: FramedContent,
        auth: FramedContentAuthData | None = None,
        *,
        key: SignaturePrivateKey | None = None,
    ) -> Sent:
        """Frames content as `framing` says."""
        auth = auth or self.sign(content, self.framing, key)
        if self.framing == PUBLIC:
            return self.public(content, auth)
        return self.private(content, auth)

    def public(
        self,
        content: FramedContent,
        auth: FramedContentAuthData | None = None,
        *,
        membership_tag: bytes | None = None,
    ) -> Sent:
        """A PublicMessage, with the right membership tag or another one."""
        auth = auth or self.sign(content, PUBLIC)
        tag = None
        if content.sender.sender_type == SenderType.MEMBER:
            tbm = content_to_be_signed(PUBLIC, content, self.context)
            tbm += auth.encode(content.content_type)
            tag = self.suite.mac(self.epoch.secrets.membership_key, tbm)
            tag = tag if membership_tag is None else membership_tag
        return Sent(MLSMessage.of(PublicMessage(content, auth, tag)).encode())

    def private(
        self,
        content: FramedContent,
        auth: FramedContentAuthData | None = None,
        *,
        leaf: int | None = None,
        generation: int | None = None,
        key_of: tuple[int, int] | None = None,
        tail: bytes = bytes(16),
        sender_data: bytes | None = None,
        body: bytes | None = None,
    ) -> Sent:
        """A PrivateMessage under a generation of this member's ratchet, or of another leaf's.

        `key_of` takes the message key of another leaf and generation than the sender data says; `tail` is the padding,
        `body` what is encrypted instead of content and signature.
        """
        suite = self.suite
        auth = auth or self.sign(content, PRIVATE)
        application = content.content_type == ContentType.APPLICATION
        kind = RatchetKind.APPLICATION if application else RatchetKind.HANDSHAKE
        claimed = LeafIndex(self.leaf if leaf is None else leaf)
        held = self.group._keys.of_epoch(content.epoch) or self.group._keys.of_epoch(
            self.context.epoch
        )
        assert held is not None
        tree = held.secret_tree
        number = tree.generation(claimed, kind) if generation is None else generation
        of_leaf, of_generation = key_of or (claimed, number)
        key = tree.find(LeafIndex(of_leaf), kind, of_generation)
        inner = content.body
        plain = encode_opaque(inner) if isinstance(inner, bytes) else inner.encode()
        plain += auth.encode(content.content_type) + tail
        head = encode_opaque(content.group_id) + content.epoch.to_bytes(8)
        head += bytes((content.content_type,))
        guard = self.rng(4)
        nonce = bytes(a ^ b for a, b in zip(key.nonce, guard + bytes(99), strict=False))
        sealed = suite.aead_seal(
            key.key,
            nonce,
            head + encode_opaque(content.authenticated_data),
            plain if body is None else body,
        )
        data = int(claimed).to_bytes(4) + number.to_bytes(4) + guard
        sample = sealed[: suite.hash_length]
        secret = held.sender_data_secret
        sd_key = suite.expand_with_label(secret, "key", sample, suite.key_length)
        sd_nonce = suite.expand_with_label(secret, "nonce", sample, suite.nonce_length)
        message = PrivateMessage(
            content.group_id,
            content.epoch,
            content.content_type,
            content.authenticated_data,
            suite.aead_seal(sd_key, sd_nonce, head, data if sender_data is None else sender_data),
            sealed,
        )
        return Sent(MLSMessage.of(message).encode(), (claimed, kind, number))

    # -- proposals

    def propose(self, proposal: Any, **changes: Any) -> Sent:
        """A proposal, whatever it is."""
        if not isinstance(proposal, Proposal):
            proposal = Proposal.of(proposal)
        return self.send(self.content(proposal, **changes))

    def update_leaf(self, key: SignaturePrivateKey | None = None, **changes: Any) -> LeafNode:
        """A leaf for an Update by this member, signed with its key or the one given."""
        old = self.epoch.leaf_node
        fields = {
            "encryption_key": self.suite.generate_hpke_key(self.rng).public,
            "signature_key": old.signature_key if key is None else key.public,
            "credential": old.credential,
            "capabilities": old.capabilities,
            "leaf_node_source": LeafNodeSource.UPDATE,
            "lifetime": None,
            "parent_hash": None,
            "extensions": old.extensions,
            "group_id": self.context.group_id,
            "leaf_index": self.leaf,
            **changes,
        }
        return LeafNodeTBS(**fields).sign(self.suite, key or self.epoch.signature_key)

    # -- Commits

    def commit(
        self,
        proposals: Iterable[Any] = (),
        *,
        path: PathChanges | None = PathChanges(),  # noqa: B008 - never changed
        tag: bytes | None = None,
        key: SignaturePrivateKey | None = None,
        interim: bytes | None = None,
        **changes: Any,
    ) -> Sent:
        """A Commit of whatever is given: proposals by value, or `Referred`."""
        return self.commit_and_epoch(
            proposals, path=path, tag=tag, key=key, interim=interim, **changes
        )[0]

    def commit_and_epoch(
        self,
        proposals: Iterable[Any] = (),
        *,
        path: PathChanges | None = PathChanges(),  # noqa: B008 - never changed
        tag: bytes | None = None,
        key: SignaturePrivateKey | None = None,
        interim: bytes | None = None,
        init_secret: bytes | None = None,
        committer: int | None = None,
        framing: WireFormat | None = None,
        **changes: Any,
    ) -> tuple[Sent, ForgedEpoch]:
        """The Commit and the epoch that it begins."""
        entries = [_entry(each) for each in proposals]
        applied = self._apply(entries)
        at = self.leaf if committer is None else LeafIndex(committer)
        built = None if path is None else self._path(applied, at, path)
        tree = applied.tree if built is None else built.tree
        commit = Commit(tuple(map(_on_wire, entries)), built.update if built else None)
        content = self.content(commit, **changes)
        framing = framing or self.framing
        auth = self.sign(content, framing, key)
        confirmed = confirmed_transcript_hash(
            self.suite,
            self.epoch.interim_transcript_hash if interim is None else interim,
            framing,
            content,
            auth.signature,
        )
        context = self._next_context(applied, tree, confirmed)
        joiner = Joiner.of_commit(
            self.suite,
            self.epoch.secrets.init_secret if init_secret is None else init_secret,
            built.commit_secret if built else bytes(self.suite.hash_length),
            psk_secret(self.suite, [(psk, self._psk(psk)) for psk in applied.psks]),
            context,
        )
        secrets, _ = joiner.epoch(context)
        right = confirmation_tag(self.suite, secrets.confirmation_key, confirmed)
        auth = FramedContentAuthData(auth.signature, right if tag is None else tag)
        sent = self.public(content, auth) if framing == PUBLIC else self.private(content, auth)
        return sent, ForgedEpoch(
            context,
            tree,
            joiner,
            secrets,
            right,
            applied.new_leaves,
            built.path_secrets if built else {},
        )

    def external_commit(
        self,
        signer: SignaturePrivateKey,
        leaf: Mapping[str, Any],
        proposals: Iterable[Any] = (),
        *,
        init: bool = True,
        path: PathChanges | None = PathChanges(),  # noqa: B008 - never changed
        **changes: Any,
    ) -> Sent:
        """An external Commit by somebody with this signature key, with an ExternalInit first unless `init` is False."""
        external = external_key_pair(self.suite, self.epoch.secrets.external_secret)
        kem_output, init_secret = external_init_seal(self.suite, external.public, self.rng)
        entries = list(proposals)
        if init:
            entries.insert(0, Proposal.of(ExternalInit(kem_output)))
        applied = self._apply([_entry(each) for each in entries])
        if path is not None:
            path = PathChanges(**{**vars(path), "leaf": {**leaf, **path.leaf}})
            path.signature_key = path.signature_key or signer
        return self.commit_and_epoch(
            entries,
            path=path,
            key=signer,
            init_secret=init_secret if init else None,
            committer=applied.tree.leftmost_blank(),
            framing=PUBLIC,
            sender=Sender(SenderType.NEW_MEMBER_COMMIT),
            **changes,
        )[0]

    def _psk(self, psk: PreSharedKeyID) -> bytes:
        found = self.group._config.psk(psk)
        if found is None and psk.psk_epoch is not None:
            found = self.group.resumption_psk(psk.psk_epoch)
        return PSK if found is None else found

    def _apply(
        self, entries: Sequence[tuple[Proposal, LeafIndex | None, bytes | None]]
    ) -> _Applied:
        tree, extensions = self.epoch.tree, self.context.extensions
        leaves: dict[int, LeafNode | None] = {}
        added: list[LeafNode] = []
        psks: list[PreSharedKeyID] = []
        for proposal, sender, _ in entries:
            content = proposal.content
            if isinstance(content, Update):
                leaves[self.leaf if sender is None else sender] = content.leaf_node
            elif isinstance(content, Remove) and content.removed < tree.leaf_count:
                leaves[content.removed] = None
            elif isinstance(content, Add):
                added.append(content.key_package.leaf_node)
            elif isinstance(content, PreSharedKey):
                psks.append(content.psk)
            elif isinstance(content, GroupContextExtensions):
                extensions = content.extensions
        tree, positions = tree.with_leaves(leaves).with_added(added)
        return _Applied(tree, extensions, tuple(positions), tuple(psks))

    def _next_context(self, applied: _Applied, tree: RatchetTree, confirmed: bytes) -> GroupContext:
        number = min(self.context.epoch + 1, (1 << 64) - 1)
        return self.context.replace(
            epoch=number,
            tree_hash=tree.tree_hash(),
            confirmed_transcript_hash=confirmed,
            extensions=applied.extensions,
        )

    def _path(self, applied: _Applied, committer: LeafIndex, changes: PathChanges) -> _Path:
        suite, tree = self.suite, applied.tree.extended(committer + 1)
        places = tree.filtered_direct_path(committer)
        first = changes.first_secret
        path_secret = Secret(self.rng(suite.hash_length) if first is None else first)
        secrets, keys = [], []
        for position, _ in enumerate(places):
            secrets.append(path_secret)
            pair = suite.derive_key_pair(suite.derive_secret(path_secret, "node"))
            keys.append(changes.public_keys.get(position, pair.public))
            path_secret = suite.derive_secret(path_secret, "path")
        parents, parent_hash = tree.path_parents(places, keys)
        leaf = self._path_leaf(committer, parent_hash, changes)
        merged = tree.with_path(committer, leaf, parents)
        provisional = self._next_context(applied, merged, self.context.confirmed_transcript_hash)
        sealer = suite.sealer("UpdatePathNode", provisional.encode())
        nodes = []
        for position, (place, key) in enumerate(zip(places, keys, strict=True)):
            secret = changes.secrets.get(position, secrets[position])
            sealed = tuple(
                HPKECiphertext(*sealer.seal(public, secret, self.rng))
                for public in tree.recipients(place.sibling, applied.new_leaves)
            )
            nodes.append(UpdatePathNode(key, sealed))
        changed = changes.nodes(tuple(nodes)) if changes.nodes else tuple(nodes)
        by_level = {place.level: secret for place, secret in zip(places, secrets, strict=True)}
        return _Path(UpdatePath(leaf, changed), merged, path_secret, by_level)

    def _path_leaf(
        self, committer: LeafIndex, parent_hash: bytes, changes: PathChanges
    ) -> LeafNode:
        signer = changes.signature_key or self.epoch.signature_key
        encryption_key = changes.leaf_key or self.suite.generate_hpke_key(self.rng)
        if changes.parent_hash is not None:
            parent_hash = changes.parent_hash
        fields = {
            "encryption_key": encryption_key.public,
            "signature_key": signer.public,
            "credential": self.epoch.leaf_node.credential,
            "capabilities": self.epoch.leaf_node.capabilities,
            "leaf_node_source": LeafNodeSource.COMMIT,
            "lifetime": None,
            "parent_hash": parent_hash,
            "extensions": self.epoch.leaf_node.extensions,
            "group_id": self.context.group_id,
            "leaf_index": LeafIndex(
                committer if changes.leaf_index is None else changes.leaf_index
            ),
            **changes.leaf,
        }
        return LeafNodeTBS(**fields).sign(self.suite, changes.leaf_signer or signer)

    # -- GroupInfo and Welcomes

    def group_info(
        self,
        tree: RatchetTree | bytes | None = None,
        *,
        context: GroupContext | None = None,
        tag: bytes | None = None,
        signer: int | None = None,
        key: SignaturePrivateKey | None = None,
        external_pub: bytes | None = None,
        extensions: Sequence[Extension] | None = None,
    ) -> GroupInfo:
        """A GroupInfo of this epoch, or of any context and tree, signed by this member or with the key given."""
        tree = self.epoch.tree if tree is None else tree
        encoded = tree if isinstance(tree, bytes) else tree.encode()
        if extensions is None:
            pub = external_pub
            if pub is None:
                pub = external_key_pair(self.suite, self.epoch.secrets.external_secret).public
            extensions = (
                Extension(ExtensionType.RATCHET_TREE, encoded),
                Extension(ExtensionType.EXTERNAL_PUB, encode_opaque(pub)),
            )
        tbs = GroupInfoTBS(
            self.context if context is None else context,
            tuple(extensions),
            self.epoch.confirmation_tag if tag is None else tag,
            LeafIndex(self.leaf if signer is None else signer),
        )
        return tbs.sign(self.suite, key or self.epoch.signature_key)

    def welcome(
        self,
        bundle: KeyPackageBundle,
        tree: RatchetTree | bytes | None = None,
        *,
        context: Mapping[str, Any] = {},
        info: Mapping[str, Any] = {},
        secrets: Mapping[str, Any] = {},
        psks: Sequence[tuple[PreSharedKeyID, bytes]] = (),
        cipher_suite: int | None = None,
        reference: bytes | None = None,
        sealed_to: bytes | None = None,
        info_key: bytes | None = None,
        path_secret: bytes | None = None,
        tag: bytes | None = None,
    ) -> bytes:
        """A Welcome into an epoch of this group's that nobody else knows, with any tree and any context.

        The tree hash is the given tree's, and everything that the joiner computes fits, but for what was changed.
        """
        suite = self.suite
        tree = self.epoch.tree if tree is None else tree
        tree_hash = tree.tree_hash() if isinstance(tree, RatchetTree) else _hash_of(tree, suite)
        whole = self.context.replace(**{"tree_hash": tree_hash, **context})
        joiner_secret = Secret(self.rng(suite.hash_length))
        joiner = Joiner.of(suite, joiner_secret, psk_secret(suite, psks))
        epoch, _ = joiner.epoch(whole)
        right = confirmation_tag(suite, epoch.confirmation_key, whole.confirmed_transcript_hash)
        group_info = self.group_info(tree, context=whole, tag=right if tag is None else tag, **info)
        key, nonce = joiner.welcome_key_and_nonce()
        sealed_info = suite.aead_seal(info_key or key, nonce, b"", group_info.encode())
        fields = {
            "joiner_secret": joiner_secret,
            "path_secret": None if path_secret is None else PathSecret(Secret(path_secret)),
            "psks": tuple(psk for psk, _ in psks),
            **secrets,
        }
        package = bundle.key_package
        sealed = suite.sealer("Welcome", sealed_info).seal(
            sealed_to or package.init_key, GroupSecrets(**fields).encode(), self.rng
        )
        entry = EncryptedGroupSecrets(
            package.reference() if reference is None else reference, HPKECiphertext(*sealed)
        )
        number = CipherSuite(suite.cipher_suite if cipher_suite is None else cipher_suite)
        return MLSMessage.of(Welcome(number, (entry,), sealed_info)).encode()


def _hash_of(tree: bytes, suite: Suite) -> bytes:
    try:
        return UnverifiedTree.decode(tree, suite).trust().tree_hash()
    except Exception:  # noqa: BLE001 - a tree that cannot even be read has no hash; any will do
        return bytes(suite.hash_length)


def _entry(each: Any) -> tuple[Proposal, LeafIndex | None, bytes | None]:
    if isinstance(each, Referred):
        return each.proposal, each.sender, each.reference
    return (each if isinstance(each, Proposal) else Proposal.of(each)), None, None


def _on_wire(entry: tuple[Proposal, LeafIndex | None, bytes | None]) -> ProposalOrRef:
    proposal, _, reference = entry
    if reference is None:
        return ProposalOrRef(ProposalOrRefType.PROPOSAL, proposal)
    return ProposalOrRef(ProposalOrRefType.REFERENCE, reference)


def key_package(
    suite: Suite,
    bundle: KeyPackageBundle,
    *,
    leaf: Mapping[str, Any] = {},
    leaf_signer: SignaturePrivateKey | None = None,
    signer: SignaturePrivateKey | None = None,
    **changes: Any,
) -> KeyPackage:
    """A key package with other fields, signed again."""
    old = bundle.key_package
    node = sign_leaf(suite, old.leaf_node, leaf_signer or bundle.signature_key, **leaf)
    package = old.replace(**{"leaf_node": node, **changes})
    raw = package.replace(signature=b"").encode()[:-1]
    key = signer or bundle.signature_key
    return package.replace(signature=suite.sign_with_label(key, "KeyPackageTBS", raw))


def sign_leaf(suite: Suite, leaf: LeafNode, key: SignaturePrivateKey, **changes: Any) -> LeafNode:
    """A leaf with other fields, signed again; `group_id` and `leaf_index` where its source asks for them."""
    fields = {f.name: getattr(leaf, f.name) for f in leaf._fields if f.name != "signature"}
    return LeafNodeTBS(**{**fields, **changes}).sign(suite, key)


def encode_tree(nodes: Sequence[LeafNode | ParentNode | None]) -> bytes:
    """`optional<Node> ratchet_tree<V>` of any nodes in any order."""
    parts = []
    for node in nodes:
        if node is None:
            parts.append(b"\x00")
        else:
            kind = b"\x01" if isinstance(node, LeafNode) else b"\x02"
            parts.append(b"\x01" + kind + node.encode())
    return encode_opaque(b"".join(parts))
