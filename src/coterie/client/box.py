"""Requests in a group's boxes: who must be added again asks there (docs/delivery-protocol.md, section 10)."""

from __future__ import annotations

import secrets

from coterie.client.epoch_keys import EpochKeys
from coterie.client.identity import Package
from coterie.client.line import Line
from coterie.errors import DecodeError, DecryptionError, StateError, VerificationError
from coterie.mls.crypto import Suite, suite_of
from coterie.mls.framing import MLSMessage
from coterie.mls.key_package import KeyPackage
from coterie.mls.leaf_node import LeafNode
from coterie.mls.tree_math import LeafIndex
from coterie.transport import api

_SIZES = (4096, 8192, 16384)
_TAG = 16
UNKNOWN = 0xFFFFFFFF
"""In the place of a leaf's index that is not known."""


def return_content(line: Line, package: Package, ticket: bytes, now: int) -> api.RequestContent:
    """What a member says to be added again in the place of its leaf (D-BOX-7)."""
    leaf = line.group.member(line.group.own_leaf)
    return request_to_return(line.binding.log_id, package, ticket, leaf.node, leaf.leaf, now=now)


def request_to_return(
    log_id: bytes,
    package: Package,
    ticket: bytes,
    node: LeafNode | None,
    leaf_index: int = UNKNOWN,
    *,
    now: int,
) -> api.RequestContent:
    """The request to take a package in the place of a leaf node, which is likely to be at an index (D-BOX-7).

    Without a node the request names no leaf: its sender remembers none (D-BOX-14).
    """
    remembered = api.ZERO32 if node is None else api.sha256(node.encode())
    replaced = api.Replaced(LeafIndex(leaf_index), remembered)
    return signed_request(
        package,
        api.RequestTBS(
            log_id,
            api.RequestKind.RETURN,
            MLSMessage.of(package.bundle.key_package).encode(),
            ticket,
            now,
            replaced,
        ),
    )


def signed_request(package: Package, tbs: api.RequestTBS) -> api.RequestContent:
    """A request with the signature of who made its key package (D-BOX-10)."""
    suite = suite_of(package.bundle.key_package.cipher_suite)
    label = api.REQUEST_LABEL.decode()
    key = package.bundle.signature_key
    return api.RequestContent(tbs, suite.sign_with_label(key, label, tbs.encode()))


def check_request(content: api.RequestContent, package: KeyPackage, log_id: bytes) -> None:
    """Raises `VerificationError` unless who made the key package asks, and for this log (D-BOX-10)."""
    if content.tbs.log_id != log_id:
        msg = "a request for another group"
        raise VerificationError(msg, rule="D-BOX-10")
    suite_of(package.cipher_suite).verify_with_label(
        package.leaf_node.signature_key,
        api.REQUEST_LABEL.decode(),
        content.tbs.encode(),
        content.signature,
        rule="D-BOX-10",
    )


def join_request(
    link: api.Link, package: Package, ticket: bytes, note: bytes, now: int
) -> api.PostRequest:
    """What somebody with a link says to be let in (D-BOX-6)."""
    message = MLSMessage.of(package.bundle.key_package).encode()
    tbs = api.RequestTBS(link.log_id, api.RequestKind.JOIN, message, ticket, now, note=note)
    return post_into(link, signed_request(package, tbs))


def post_into(link: api.Link, content: api.RequestContent) -> api.PostRequest:
    """A request, sealed to the box of a link (D-BOX-2)."""
    sealed = suite_of(link.cipher_suite).hpke.seal(
        link.box_key,
        api.BOX_INFO + link.log_id + link.epoch,
        b"",
        _padded(content),
        secrets.token_bytes,
    )
    return api.PostRequest(link.log_id, link.epoch, link.box_token, api.SealedRequest(*sealed))


def decline_request(line: Line, package: Package, now: int) -> api.PostRequest:
    """What a device says whose user does not want to be in a group that it was added to (D-BOX-13)."""
    message = MLSMessage.of(package.bundle.key_package).encode()
    # Nobody answers, so there is no ticket for a Welcome.
    tbs = api.RequestTBS(line.binding.log_id, api.RequestKind.DECLINE, message, api.ZERO32, now)
    return return_request(line, signed_request(package, tbs))


def return_request(line: Line, content: api.RequestContent) -> api.PostRequest:
    """The request, sealed to the box of the epoch that the line is in (D-BOX-2)."""
    return sealed_request(line.group.suite, line.keys, line.state.epoch, content)


def sealed_request(
    suite: Suite, keys: EpochKeys, epoch: bytes, content: api.RequestContent
) -> api.PostRequest:
    """A request, sealed to the box of the epoch that has these keys (D-BOX-2)."""
    box_key = suite.derive_key_pair(keys.box_seed)
    info = api.BOX_INFO + keys.log_id + epoch
    sealed = suite.hpke.seal(box_key.public, info, b"", _padded(content), secrets.token_bytes)
    return api.PostRequest(keys.log_id, epoch, bytes(keys.box_token), api.SealedRequest(*sealed))


def open_request(line: Line, seed: bytes | None, item: api.BoxItem) -> api.RequestContent | None:
    """What a request says, None where this member cannot open it (D-BOX-4)."""
    if seed is None:
        return None
    suite, request = line.group.suite, item.request
    info = api.BOX_INFO + line.binding.log_id + item.epoch
    box_key = suite.derive_key_pair(seed)
    try:
        data = suite.hpke.open(box_key, request.kem_output, info, b"", request.ciphertext)
        return api.RequestContent.decode(bytes(data))
    except (DecryptionError, VerificationError, DecodeError):
        return None


def _padded(content: api.RequestContent) -> bytes:
    """The content with zeros up to one of few sizes (D-BOX-2)."""
    bare = len(content.encode())
    for size in _SIZES:
        target = size - _TAG
        for header in (1, 2, 4):
            length = target - bare - header + 1
            if length < 0:
                continue
            encoded = content.replace(padding=bytes(length)).encode()
            if len(encoded) == target:
                return encoded
    msg = f"a request of {bare} bytes does not fit a box"
    raise StateError(msg)
