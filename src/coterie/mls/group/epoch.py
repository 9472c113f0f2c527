"""An epoch as one member sees it: a value (RFC 9420 §8, §12.4).

An `Epoch` has everything but the message keys. Creating or processing a Commit gives a `StagedEpoch` beside the present
one: the next epoch, its encryption secret and what would change in the index of used keys. Dropping it costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from coterie.mls.crypto import SignaturePrivateKey, Suite
from coterie.mls.framing import FramedContent
from coterie.mls.group_context import GroupContext
from coterie.mls.hpke import HPKEPrivateKey, RandomSource
from coterie.mls.key_schedule import EpochSecrets, external_key_pair
from coterie.mls.leaf_node import LeafNode
from coterie.mls.proposal import Commit, Proposal, ReInit
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.tree_index import Counters
from coterie.mls.tree_math import LeafIndex
from coterie.mls.treekem import PrivatePath
from coterie.mls.types import ContentType, Sender, SenderType
from coterie.mls.validation import PublicState


@dataclass(frozen=True, slots=True, repr=False)
class Epoch:
    """One epoch of a group, with this member's private keys."""

    suite: Suite
    context: GroupContext
    tree: RatchetTree
    private: PrivatePath
    signature_key: SignaturePrivateKey
    secrets: EpochSecrets
    interim_transcript_hash: bytes
    confirmation_tag: bytes
    reinit: ReInit | None = None
    """Set where the Commit that began this epoch was a ReInit: the group is over (§11.2)."""

    def __repr__(self) -> str:
        return f"Epoch({self.context.group_id.hex()}, {self.number}, {self.leaf!r})"

    @property
    def number(self) -> int:
        """The epoch's number."""
        return self.context.epoch

    @property
    def leaf(self) -> LeafIndex:
        """This member's leaf."""
        return self.private.leaf

    @property
    def leaf_node(self) -> LeafNode:
        """This member's leaf node."""
        return self.tree.member(self.leaf, rule=Rule.SENDER_BLANK)

    @property
    def sender(self) -> Sender:
        """This member as a sender."""
        return Sender(SenderType.MEMBER, self.leaf)

    def content(
        self, kind: ContentType, body: bytes | Proposal | Commit, authenticated_data: bytes
    ) -> FramedContent:
        """Content of this member in this epoch, not signed."""
        return FramedContent(
            self.context.group_id, self.number, self.sender, authenticated_data, kind, body
        )

    def forgotten(self, rng: RandomSource) -> Epoch:
        """The epoch as one who left keeps it: every secret is replaced by one that means nothing."""
        empty = EpochSecrets(*[Secret(b"")] * len(EpochSecrets._fields))
        nothing = PrivatePath(self.leaf, self.suite.generate_hpke_key(rng), {})
        key = self.suite.generate_signature_key(rng)
        return replace(self, private=nothing, signature_key=key, secrets=empty)

    def public(self, index: Counters) -> PublicState:
        """What observers see as well."""
        return PublicState(self.suite, self.context, self.tree, index)

    def external_key(self) -> HPKEPrivateKey:
        """The key pair for external joiners (§8.3)."""
        return external_key_pair(self.suite, self.secrets.external_secret)


@dataclass(frozen=True, slots=True, repr=False)
class StagedEpoch:
    """The next epoch, not adopted."""

    epoch: Epoch
    encryption_secret: Secret
    index_changes: Mapping[bytes, int]

    def __repr__(self) -> str:
        return f"StagedEpoch({self.epoch!r})"

    @property
    def epoch_authenticator(self) -> bytes:
        """What members compare to see that they are in the same epoch (§8.7); not a secret in that use."""
        return bytes(self.epoch.secrets.epoch_authenticator)
