"""Requests in a group's boxes: who must be added again asks there (docs/delivery-protocol.md, section 10)."""

from __future__ import annotations

import secrets

from coterie.client.identity import Package
from coterie.client.line import Line
from coterie.errors import DecodeError, DecryptionError, StateError, VerificationError
from coterie.mls.framing import MLSMessage
from coterie.transport import api

_SIZES = (4096, 8192, 16384)
_TAG = 16


def return_content(line: Line, package: Package, ticket: bytes) -> api.RequestContent:
    """What a member says to be added again in the place of its leaf (D-BOX-7)."""
    leaf = line.group.member(line.group.own_leaf)
    return api.RequestContent(
        api.RequestKind.RETURN,
        MLSMessage.of(package.bundle.key_package).encode(),
        ticket,
        api.Replaced(leaf.leaf, api.sha256(leaf.node.encode())),
    )


def return_request(line: Line, content: api.RequestContent) -> api.PostRequest:
    """The request, sealed to the box of the epoch that the line is in (D-BOX-2)."""
    suite, keys = line.group.suite, line.keys
    box_key = suite.derive_key_pair(keys.box_seed)
    sealed = suite.hpke.seal(
        box_key.public,
        _info(line, line.state.epoch),
        b"",
        _padded(content),
        secrets.token_bytes,
    )
    return api.PostRequest(
        line.binding.log_id, line.state.epoch, bytes(keys.box_token), api.SealedRequest(*sealed)
    )


def open_request(line: Line, seed: bytes | None, item: api.BoxItem) -> api.RequestContent | None:
    """What a request says, None where this member cannot open it (D-BOX-4)."""
    if seed is None:
        return None
    suite, request = line.group.suite, item.request
    box_key = suite.derive_key_pair(seed)
    try:
        data = suite.hpke.open(
            box_key, request.kem_output, _info(line, item.epoch), b"", request.ciphertext
        )
        return api.RequestContent.decode(bytes(data))
    except (DecryptionError, VerificationError, DecodeError):
        return None


def _info(line: Line, epoch: bytes) -> bytes:
    return api.BOX_INFO + line.binding.log_id + epoch


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
