"""§2.1: bytes that are not the struct they should be, received by a member."""

from __future__ import annotations

from coterie.mls.crypto import suite_of
from coterie.mls.framing import MLSMessage
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.proposal import Commit, PreSharedKey, Proposal, Remove
from coterie.mls.rules import Rule
from coterie.mls.tls import encode_opaque
from coterie.mls.types import Sender
from tests.rules.cases.registry import case
from tests.rules.forging import PUBLIC, Forger, Sent
from tests.rules.world import Attack, Call, World


def _refused(w: World, data: bytes) -> Attack:
    return w.victim(Sent(data), consumes=False)


@case(Rule.TRUNCATED, "a message that ends inside its epoch")
def _(w: World, f: Forger) -> Attack:
    return _refused(w, f.commit().data[: 4 + 1 + len(f.context.group_id) + 7])


@case(Rule.VECTOR_OVERRUN, "a message without its last byte")
def _(w: World, f: Forger) -> Attack:
    return _refused(w, f.commit().data[:-1])


@case(Rule.TRUNCATED, "a message that ends inside a vector header")
def _(w: World, f: Forger) -> Attack:
    return _refused(w, f.commit().data[:4])


@case(Rule.TRUNCATED, "no bytes at all")
def _(w: World, f: Forger) -> Attack:
    return _refused(w, b"")


@case(Rule.TRAILING_BYTES, "a message with a byte after its end")
def _(w: World, f: Forger) -> Attack:
    return _refused(w, f.commit().data + b"\0")


@case(Rule.TRAILING_BYTES, "two messages in one")
def _(w: World, f: Forger) -> Attack:
    return _refused(w, f.commit().data + f.commit().data)


@case(Rule.ENUM_VALUE, "a wire format that there is not")
def _(w: World, f: Forger) -> Attack:
    data = f.commit().data
    return _refused(w, data[:2] + b"\x00\x09" + data[4:])


@case(Rule.ENUM_VALUE, "a sender type that there is not")
def _(w: World, f: Forger) -> Attack:
    sent = f.public(f.content(Commit((), None)))
    at = 4 + 1 + len(f.context.group_id) + 8
    return _refused(w, sent.data[:at] + b"\x05" + sent.data[at + 1 :])


@case(Rule.ENUM_VALUE, "a key package where a message of the group should be")
def _(w: World, f: Forger) -> Attack:
    return _refused(w, MLSMessage.of(w.bundle("zoe").key_package).encode())


@case(Rule.ENUM_VALUE, "a GroupInfo where a message of the group should be")
def _(w: World, f: Forger) -> Attack:
    return _refused(w, MLSMessage.of(f.group_info()).encode())


@case(Rule.PRESENCE_OCTET, "a Commit whose path is neither there nor not there")
def _(w: World, f: Forger) -> Attack:
    return _refused(w, _last_octet_of_commit(f, b"\x02"))


@case(Rule.PRESENCE_OCTET, "a presence octet of 255")
def _(w: World, f: Forger) -> Attack:
    return _refused(w, _last_octet_of_commit(f, b"\xff"))


def _last_octet_of_commit(f: Forger, octet: bytes) -> bytes:
    """A Commit without a path, the presence octet of which is replaced."""
    content = f.content(Commit((), None))
    auth = f.sign(content, PUBLIC)
    data, encoded = f.public(content, auth).data, content.encode()
    at = data.index(encoded) + len(encoded) - 1
    return data[:at] + octet + data[at + 1 :]


@case(Rule.VECTOR_MINIMAL, "a length below 64 in two bytes")
def _(w: World, f: Forger) -> Attack:
    data = f.commit().data
    return _refused(w, data[:4] + b"\x40" + data[4:])


@case(Rule.VECTOR_MINIMAL, "a length below 16384 in four bytes")
def _(w: World, f: Forger) -> Attack:
    data = f.commit().data
    return _refused(w, data[:4] + b"\x80\x00\x00" + data[4:])


@case(Rule.VECTOR_PREFIX, "a vector header that starts with the bits 11")
def _(w: World, f: Forger) -> Attack:
    data = f.commit().data
    return _refused(w, data[:4] + b"\xc0" + data[5:])


@case(Rule.VECTOR_PREFIX, "a vector header of ones")
def _(w: World, f: Forger) -> Attack:
    data = f.commit().data
    return _refused(w, data[:4] + b"\xff\xff\xff\xff" + data[5:])


@case(Rule.VECTOR_OVERRUN, "a vector that is longer than what is left")
def _(w: World, f: Forger) -> Attack:
    data = f.commit().data
    return _refused(w, data[:4] + b"\x7f\xff" + data[5:])


@case(Rule.VECTOR_OVERRUN, "a vector of a gigabyte in a small message")
def _(w: World, f: Forger) -> Attack:
    data = f.commit().data
    return _refused(w, data[:4] + b"\xbf\xff\xff\xff" + data[5:])


@case(Rule.VECTOR_OVERRUN, "an element that goes past the end of its vector")
def _(w: World, f: Forger) -> Attack:
    content = f.content(Commit((), None))
    data, encoded = f.public(content).data, content.encode()
    at = data.index(encoded) + len(encoded) - 2
    # One byte of proposals: the type of the first one begins there and ends outside.
    reference = b"\x02\x01\x00"
    return _refused(w, data[:at] + b"\x01" + reference + data[at + 1 :])


@case(Rule.JSON_MAPPING, "a JSON object with a field that the struct has not")
def _(w: World, f: Forger) -> Attack:
    return Call(lambda: Remove.from_json({"removed": 1, "added": 2}))


@case(Rule.JSON_MAPPING, "a JSON object without a field")
def _(w: World, f: Forger) -> Attack:
    return Call(lambda: Remove.from_json({}))


@case(Rule.JSON_MAPPING, "a JSON number that does not fit")
def _(w: World, f: Forger) -> Attack:
    return Call(lambda: Sender.from_json({"sender_type": "member", "leaf_index": 1 << 32}))


@case(Rule.CIPHER_SUITE, "a cipher suite that nobody has heard of")
def _(w: World, f: Forger) -> Attack:
    return Call(lambda: suite_of(0x0A0A))


@case(Rule.CIPHER_SUITE, "the cipher suite of number zero")
def _(w: World, f: Forger) -> Attack:
    return Call(lambda: suite_of(0))


@case(Rule.TRUNCATED, "a vector header whose second byte is missing")
def _(w: World, f: Forger) -> Attack:
    return _refused(w, f.commit().data[:4] + b"\x40")


@case(Rule.ENUM_VALUE, "a kind of pre-shared key that there is not")
def _(w: World, f: Forger) -> Attack:
    psk = PreSharedKey(PreSharedKeyID.external(b"", w.rng(w.suite.hash_length)))
    data = f.public(f.content(Proposal.of(psk))).data
    return _refused(w, data.replace(b"\x00\x04\x01\x00", b"\x00\x04\x03\x00", 1))


def _welcome(w: World, secrets: bytes) -> bytes:
    head = b"\x00\x01\x00\x03" + int(w.suite.cipher_suite).to_bytes(2)
    return head + encode_opaque(secrets)


@case(Rule.VECTOR_OVERRUN, "a long Welcome whose first entry goes past the end of all")
def _(w: World, f: Forger) -> Attack:
    return Call(lambda: MLSMessage.read(_welcome(w, b"\x7f\xff" + bytes(1200)) + b"\0"))


@case(Rule.TRUNCATED, "a long Welcome that ends inside its first entry")
def _(w: World, f: Forger) -> Attack:
    return Call(lambda: MLSMessage.read(_welcome(w, encode_opaque(bytes(1200)))))
