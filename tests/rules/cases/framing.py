"""§6 and §9: messages that are signed, tagged or sealed as they must not be."""

from __future__ import annotations

from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.proposal import Commit, PreSharedKey, Proposal, Remove
from coterie.mls.rules import Rule
from coterie.mls.secret_tree import RatchetKind, SecretTree
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import Sender, SenderType
from tests.rules.cases.registry import BOTH, case
from tests.rules.forging import PRIVATE, PUBLIC, Forger, PathChanges, Sent
from tests.rules.world import Attack, Call, World

BLANK, OUTSIDE = 5, 99
REMOVE = Proposal.of(Remove(LeafIndex(3)))
NEW_PROPOSAL = Sender(SenderType.NEW_MEMBER_PROPOSAL)
NEW_COMMIT = Sender(SenderType.NEW_MEMBER_COMMIT)


def _external(index: int) -> Sender:
    return Sender(SenderType.EXTERNAL, sender_index=index)


@case(Rule.MESSAGE_VERSION, "a message of protocol version 2")
def _(w: World, f: Forger) -> Attack:
    return w.victim(Sent(b"\x00\x02" + f.commit().data[2:]), consumes=False)


@case(Rule.MESSAGE_VERSION, "a message of protocol version 0")
def _(w: World, f: Forger) -> Attack:
    return w.victim(Sent(b"\x00\x00" + f.commit().data[2:]), consumes=False)


@case(Rule.GROUP_ID, "a message of another group", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.send(f.content(REMOVE, group_id=b"another")), consumes=False)


@case(Rule.EPOCH, "a proposal of the epoch before", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.send(f.content(REMOVE, epoch=f.context.epoch - 1)), consumes=False)


@case(Rule.EPOCH, "a proposal of the epoch to come", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.send(f.content(REMOVE, epoch=f.context.epoch + 1)), consumes=False)


@case(Rule.EPOCH, "a Commit of the last possible epoch", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    content = f.content(Commit((), None), epoch=(1 << 64) - 1)
    return w.victim(f.send(content), consumes=False)


@case(Rule.APPLICATION_PUBLIC, "application data that is not encrypted")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.public(f.content(b"for everyone to read")))


@case(Rule.APPLICATION_PUBLIC, "an empty message that is not encrypted")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.public(f.content(b"")))


@case(Rule.SENDER_BLANK, "a proposal from a blank leaf")
def _(w: World, f: Forger) -> Attack:
    sender = Sender(SenderType.MEMBER, LeafIndex(BLANK))
    return w.victim(f.public(f.content(REMOVE, sender=sender)))


@case(Rule.SENDER_BLANK, "a proposal from a leaf outside of the tree")
def _(w: World, f: Forger) -> Attack:
    sender = Sender(SenderType.MEMBER, LeafIndex(OUTSIDE))
    return w.victim(f.public(f.content(REMOVE, sender=sender)))


@case(Rule.CONTENT_SIGNATURE, "a proposal signed with another key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.send(f.content(REMOVE), key=w.key("zoe")), consumes=False)


@case(Rule.CONTENT_SIGNATURE, "a Commit signed for the other wire format", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    content = f.content(Commit((), None))
    other = PUBLIC if f.framing == PRIVATE else PRIVATE
    return w.victim(f.send(content, f.sign(content, other)), consumes=False)


@case(Rule.CONTENT_SIGNATURE, "a proposal without a signature", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    content = f.content(REMOVE)
    return w.victim(
        f.send(content, f.sign(content, f.framing).replace(signature=b"")), consumes=False
    )


@case(Rule.CONTENT_SIGNATURE, "a message in the name of another member")
def _(w: World, f: Forger) -> Attack:
    content = f.content(b"it was carol", sender=Sender(SenderType.MEMBER, LeafIndex(2)))
    return w.victim(f.private(content, leaf=2), consumes=False)


@case(Rule.CONTENT_SIGNATURE, "an external sender's proposal signed with another key")
def _(w: World, f: Forger) -> Attack:
    content = f.content(REMOVE, sender=_external(0))
    return w.victim(f.public(content, f.sign(content, PUBLIC, w.key("zoe"))))


@case(Rule.CONTENT_SIGNATURE, "an external Commit signed with another key than its leaf's")
def _(w: World, f: Forger) -> Attack:
    zoe, yan = w.key("zoe"), w.key("yan")
    bundle = w.bundle("zoe")
    f.framing = PUBLIC
    sent, _ = f.commit_and_epoch(sender=NEW_COMMIT, key=yan, committer=BLANK, path=_path_of(w))
    assert zoe.public == bundle.key_package.leaf_node.signature_key
    return w.victim(sent)


def _path_of(w: World) -> PathChanges:
    leaf = w.bundle("zoe").key_package.leaf_node
    return PathChanges(signature_key=w.key("zoe"), leaf={"credential": leaf.credential})


@case(Rule.CONFIRMATION_TAG, "a confirmation tag of zeros", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(tag=bytes(f.suite.hash_length)))


@case(Rule.CONFIRMATION_TAG, "a confirmation tag cut in half", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    _, epoch = f.commit_and_epoch()
    return w.victim(f.commit(tag=epoch.confirmation_tag[:16]))


@case(Rule.CONFIRMATION_TAG, "an empty confirmation tag", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(tag=b""))


@case(Rule.CONFIRMATION_TAG, "a Commit on another history", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit(interim=bytes(f.suite.hash_length)))


@case(Rule.EXTERNAL_SENDER_INDEX, "an external sender right after the last one")
def _(w: World, f: Forger) -> Attack:
    content = f.content(REMOVE, sender=_external(1))
    return w.victim(f.public(content, f.sign(content, PUBLIC, w.key("server"))))


@case(Rule.EXTERNAL_SENDER_INDEX, "an external sender far away")
def _(w: World, f: Forger) -> Attack:
    content = f.content(REMOVE, sender=_external((1 << 32) - 1))
    return w.victim(f.public(content, f.sign(content, PUBLIC, w.key("server"))))


@case(Rule.EXTERNAL_SENDER_CONTENT, "a Commit by an external sender")
def _(w: World, f: Forger) -> Attack:
    content = f.content(Commit((), None), sender=_external(0))
    return w.victim(f.public(content, f.sign(content, PUBLIC, w.key("server"))))


@case(Rule.EXTERNAL_SENDER_CONTENT, "application data by an external sender")
def _(w: World, f: Forger) -> Attack:
    content = f.content(b"hello", sender=_external(0))
    return w.victim(f.public(content, f.sign(content, PUBLIC, w.key("server"))))


@case(Rule.NEW_MEMBER_CONTENT, "a proposal as a new member's Commit")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.public(f.content(REMOVE, sender=NEW_COMMIT)))


@case(Rule.NEW_MEMBER_CONTENT, "a Commit as a new member's proposal")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.public(f.content(Commit((), None), sender=NEW_PROPOSAL)))


@case(Rule.NEW_MEMBER_PROPOSAL_TYPE, "a Remove as a new member's proposal")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.public(f.content(REMOVE, sender=NEW_PROPOSAL)))


@case(Rule.NEW_MEMBER_PROPOSAL_TYPE, "a pre-shared key as a new member's proposal")
def _(w: World, f: Forger) -> Attack:
    psk = Proposal.of(PreSharedKey(PreSharedKeyID.external(b"shared", w.rng(32))))
    return w.victim(f.public(f.content(psk, sender=NEW_PROPOSAL)))


@case(Rule.MEMBERSHIP_TAG, "a membership tag of zeros")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.public(f.content(REMOVE), membership_tag=bytes(f.suite.hash_length)))


@case(Rule.MEMBERSHIP_TAG, "an empty membership tag")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.public(f.content(REMOVE), membership_tag=b""))


@case(Rule.MEMBERSHIP_TAG, "a membership tag of another message")
def _(w: World, f: Forger) -> Attack:
    other = f.public(f.content(REMOVE, authenticated_data=b"other")).data[-f.suite.hash_length :]
    return w.victim(f.public(f.content(REMOVE), membership_tag=other))


@case(Rule.PADDING, "a one at the end of the padding")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.private(f.content(b"hello"), tail=bytes(15) + b"\x01"), consumes=False)


@case(Rule.PADDING, "padding of ones in a proposal")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.private(f.content(REMOVE), tail=b"\x01" * 8), consumes=False)


@case(Rule.TRUNCATED, "encrypted content of no bytes")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.private(f.content(b"hello"), body=b""), consumes=False)


@case(Rule.PRIVATE_CONTENT, "a message sealed with another member's key")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.private(f.content(b"hello"), key_of=(2, 0)), consumes=False)


@case(Rule.PRIVATE_CONTENT, "a message sealed with another generation's key")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.private(f.content(b"hello"), generation=7, key_of=(0, 8)), consumes=False)


@case(Rule.PRIVATE_CONTENT, "a message whose last byte was changed")
def _(w: World, f: Forger) -> Attack:
    data = f.private(f.content(b"hello")).data
    # The keys of the sender data depend on the beginning of the ciphertext only.
    return w.victim(Sent(data[:-1] + bytes((data[-1] ^ 1,))), consumes=False)


@case(Rule.SENDER_DATA, "sender data that somebody changed")
def _(w: World, f: Forger) -> Attack:
    sent = f.private(f.content(b"hello"))
    at = sent.data.index(b"\x1c", 4 + 1 + len(f.context.group_id) + 8)
    return w.victim(
        Sent(sent.data[: at + 1] + bytes((sent.data[at + 1] ^ 1,)) + sent.data[at + 2 :]),
        consumes=False,
    )


@case(Rule.SENDER_DATA, "sender data of another epoch")
def _(w: World, f: Forger) -> Attack:
    sent = f.private(f.content(b"hello", epoch=f.context.epoch + 1))
    right = (f.context.epoch + 1).to_bytes(8), f.context.epoch.to_bytes(8)
    return w.victim(Sent(sent.data.replace(*right, 1)), consumes=False)


@case(Rule.TRUNCATED, "sender data that is too short")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.private(f.content(b"hello"), sender_data=bytes(11)), consumes=False)


@case(Rule.SENDER_DATA_LEAF, "sender data that names a blank leaf")
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.private(f.content(b"hello"), leaf=BLANK, key_of=(0, 0)), consumes=False)


@case(Rule.SENDER_DATA_LEAF, "sender data that names a leaf outside of the tree")
def _(w: World, f: Forger) -> Attack:
    sent = f.private(f.content(b"hello"), leaf=OUTSIDE, generation=0, key_of=(0, 0))
    return w.victim(sent, consumes=False)


@case(Rule.GENERATION_USED, "a message that arrives twice")
def _(w: World, f: Forger) -> Attack:
    sent = f.private(f.content(b"hello"))
    return w.victim(sent, consumes=False, after=[sent.data])


@case(Rule.GENERATION_USED, "another message under a generation that was used")
def _(w: World, f: Forger) -> Attack:
    first = f.private(f.content(b"hello"), generation=3)
    second = f.private(f.content(b"goodbye"), generation=3)
    return w.victim(second, consumes=False, after=[first.data])


@case(Rule.GENERATION_USED, "a Commit that arrives twice")
def _(w: World, f: Forger) -> Attack:
    sent = f.commit()
    return w.victim(sent, consumes=False, after=[sent.data])


@case(Rule.GENERATION_USED, "a secret tree that holds nothing")
def _(w: World, f: Forger) -> Attack:
    tree = SecretTree(f.suite, 4)
    return Call(lambda: tree.find(LeafIndex(0), RatchetKind.APPLICATION, 0))


@case(Rule.GENERATION_FORWARD, "the first generation that is too far ahead")
def _(w: World, f: Forger) -> Attack:
    sent = f.private(f.content(b"hello"), generation=1001, key_of=(0, 0))
    return w.victim(sent, consumes=False)


@case(Rule.GENERATION_FORWARD, "the last generation there is")
def _(w: World, f: Forger) -> Attack:
    sent = f.private(f.content(b"hello"), generation=(1 << 32) - 1, key_of=(0, 0))
    return w.victim(sent, consumes=False)


@case(Rule.CONTENT_SIGNATURE, "a message in the receiver's own name")
def _(w: World, f: Forger) -> Attack:
    sender = Sender(SenderType.MEMBER, LeafIndex(1))
    return w.victim(f.private(f.content(b"hello", sender=sender), leaf=1), consumes=False)


@case(Rule.OWN_MESSAGE_UNKNOWN, "application data by a copy of the receiver")
def _(w: World, f: Forger) -> Attack:
    copy = w.forger("bob")
    return w.victim(copy.private(copy.content(b"hello")), consumes=False)


@case(Rule.OWN_MESSAGE_UNKNOWN, "a proposal by a copy of the receiver", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    copy = w.forger("bob", f.framing)
    return w.victim(copy.send(copy.content(REMOVE)), consumes=False)
