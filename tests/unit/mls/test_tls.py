"""The codec: every struct both ways, and every malformed encoding refused with its rule (RFC 9420 §2.1).

COTERIE_EXAMPLES multiplies the number of examples that hypothesis tries.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import DecodeError, RuleViolation
from coterie.mls.crypto import suite_of
from coterie.mls.framing import AuthenticatedContent, FramedContentAuthData, MLSMessage
from coterie.mls.ratchet_tree import UnverifiedTree
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.tls import (
    MAX_VECTOR_LENGTH,
    Fixed,
    Rest,
    Select,
    Struct,
    Uint,
    Uint8Enum,
    Uint16Registry,
    When,
    decode_varint,
    encode_opaque,
    encode_varint,
)
from coterie.mls.types import (
    CipherSuite,
    ContentType,
    ProposalType,
    Sender,
    SenderType,
    WireFormat,
)
from tests.structs import all_structs, needs_given, with_given

STRUCTS = all_structs()
CODEC_RULES = {
    Rule.TRUNCATED,
    Rule.TRAILING_BYTES,
    Rule.ENUM_VALUE,
    Rule.PRESENCE_OCTET,
    Rule.VECTOR_MINIMAL,
    Rule.VECTOR_PREFIX,
    Rule.VECTOR_OVERRUN,
}
EFFORT = int(os.environ.get("COTERIE_EXAMPLES", "1"))
each_struct = pytest.mark.parametrize("cls", STRUCTS, ids=lambda cls: cls.__name__)


class Colour(Uint8Enum):
    RED = 1
    GREEN = 2


class Animal(Uint16Registry):
    CAT = 1


class Point(Struct):
    x: Annotated[int, Uint(2)]


class Both(Struct):
    wire_format: WireFormat
    cipher_suite: CipherSuite


class Everything(Struct):
    small: Annotated[int, Uint(1)]
    large: Annotated[int, Uint(8)]
    colour: Colour
    animal: Animal
    data: bytes
    secret: Secret
    four: Annotated[bytes, Fixed(4)]
    points: tuple[Point, ...]
    maybe: Point | None
    only_red: Annotated[bytes | None, When("colour", Colour.RED)]
    chosen: Annotated[bytes | Point, Select("colour", {Colour.RED: bytes, Colour.GREEN: Point})]


class Padded(Struct):
    head: bytes
    padding: Annotated[bytes, Rest()]


RED = Everything(
    1, 2**63, Colour.RED, Animal.CAT, b"ab", Secret(b"s"), b"1234", (Point(5), Point(6)), None,
    b"r", b"c",
)  # fmt: skip
GREEN = RED.replace(
    colour=Colour.GREEN,
    animal=Animal(0xF00D),
    maybe=Point(7),
    only_red=None,
    chosen=Point(8),
)
RED_BYTES = bytes.fromhex(
    "01 8000000000000000 01 0001 026162 0173 31323334 0400050006 00 0172 0163"
)
GREEN_BYTES = bytes.fromhex(
    "01 8000000000000000 02 f00d 026162 0173 31323334 0400050006 010007 0008"
)


def refused(cls: type[Struct], data: bytes, given: Any = None) -> str | None:
    """The rule under which bytes do not decode."""
    with pytest.raises(DecodeError) as caught:
        cls.decode(data, given)
    return caught.value.rule


# -- the encoding itself


@pytest.mark.parametrize(("struct", "data"), [(RED, RED_BYTES), (GREEN, GREEN_BYTES)])
def test_every_kind_of_field_is_written_as_the_rfc_says(struct: Everything, data: bytes) -> None:
    assert struct.encode() == data
    assert Everything.decode(data) == struct


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, "00"),
        (63, "3f"),
        (64, "4040"),
        (16383, "7fff"),
        (16384, "80004000"),
        (MAX_VECTOR_LENGTH, "bfffffff"),
    ],
)
def test_a_vector_header_has_as_few_bytes_as_possible(length: int, header: str) -> None:
    assert encode_varint(length) == bytes.fromhex(header)
    assert decode_varint(bytes.fromhex(header), 0) == (length, len(header) // 2)


def test_a_vector_longer_than_a_header_can_say_is_not_written() -> None:
    with pytest.raises(ValueError, match=str(MAX_VECTOR_LENGTH + 1)):
        encode_varint(MAX_VECTOR_LENGTH + 1)


@pytest.mark.parametrize("header", ["4000", "403f", "80000000", "80003fff"])
def test_a_length_in_too_many_bytes_is_refused(header: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_varint(bytes.fromhex(header), 0)
    assert caught.value.rule == Rule.VECTOR_MINIMAL
    assert refused(Padded, bytes.fromhex(header)) == Rule.VECTOR_MINIMAL


@pytest.mark.parametrize("header", ["c0", "ff", "c000000000000001"])
def test_a_length_with_the_invalid_prefix_is_refused(header: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_varint(bytes.fromhex(header), 0)
    assert caught.value.rule == Rule.VECTOR_PREFIX
    assert refused(Padded, bytes.fromhex(header)) == Rule.VECTOR_PREFIX


@pytest.mark.parametrize("header", ["", "40", "80", "8000", "800040"])
def test_a_header_that_is_cut_off_is_refused(header: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_varint(bytes.fromhex(header), 0)
    assert caught.value.rule == Rule.TRUNCATED
    assert refused(Padded, bytes.fromhex(header)) == Rule.TRUNCATED


@pytest.mark.parametrize("data", ["05", "0541", "bfffffff41", "7fff41"])
def test_a_vector_longer_than_what_is_left_is_refused(data: str) -> None:
    assert refused(Padded, bytes.fromhex(data)) == Rule.VECTOR_OVERRUN


def test_an_element_that_goes_past_the_end_of_its_vector_is_refused() -> None:
    class Points(Struct):
        points: tuple[Point, ...]
        after: bytes

    assert refused(Points, bytes.fromhex("03 0001 00 02 6162")) == Rule.VECTOR_OVERRUN


@pytest.mark.parametrize("octet", [2, 3, 128, 255])
def test_a_presence_octet_other_than_0_and_1_is_refused(octet: int) -> None:
    class Maybe(Struct):
        point: Point | None

    assert refused(Maybe, bytes((octet, 0, 7))) == Rule.PRESENCE_OCTET


@pytest.mark.parametrize("value", [0, 3, 255])
def test_a_value_that_a_closed_enum_lacks_is_refused(value: int) -> None:
    data = bytearray(RED_BYTES)
    data[9] = value
    assert refused(Everything, bytes(data)) == Rule.ENUM_VALUE


def test_a_value_that_a_registry_lacks_survives_decoding_encoding_and_json() -> None:
    struct = Everything.decode(GREEN_BYTES)
    assert int(struct.animal) == 0xF00D
    assert not struct.animal.is_known
    assert Everything.from_json(json.loads(json.dumps(struct.to_json()))).encode() == GREEN_BYTES


def test_a_message_of_an_unknown_wire_format_is_refused() -> None:
    assert refused(MLSMessage, bytes.fromhex("0001 0009 00")) == Rule.ENUM_VALUE


def test_padding_takes_all_that_is_left() -> None:
    assert Padded.decode(b"\x01a\x00\x00") == Padded(b"a", b"\0\0")


@pytest.mark.parametrize("data", [RED_BYTES, GREEN_BYTES])
def test_every_way_to_cut_an_encoding_off_is_refused(data: bytes) -> None:
    for end in range(len(data)):
        assert refused(Everything, data[:end]) in {Rule.TRUNCATED, Rule.VECTOR_OVERRUN}


def test_a_byte_after_the_end_is_refused() -> None:
    assert refused(Everything, RED_BYTES + b"\0") == Rule.TRAILING_BYTES


# -- structs as values


def test_a_decoded_struct_gives_back_the_bytes_that_arrived() -> None:
    around = b"\xaa" + GREEN_BYTES + b"\xbb"
    struct, end = Everything.decode_prefix(around, 1)
    assert end == len(around) - 1
    assert struct.encode() == GREEN_BYTES


def test_a_changed_copy_is_encoded_anew() -> None:
    assert Everything.decode(RED_BYTES).replace(small=9).encode() == b"\x09" + RED_BYTES[1:]


def test_a_struct_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="replace"):
        Point(1).x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del Point(1).x


def test_structs_are_equal_by_their_fields_and_only_to_their_own_kind() -> None:
    assert Point.decode(b"\0\x01") == Point(1)
    assert hash(Point.decode(b"\0\x01")) == hash(Point(1))
    assert Point(1) != Point(2)
    assert Point(1) != Sender(SenderType.EXTERNAL, None, 1)


def test_a_secret_in_a_struct_does_not_print() -> None:
    assert b"topsecret".hex() not in repr(RED.replace(secret=Secret(b"topsecret")))
    assert "Secret(9 bytes)" in repr(RED.replace(secret=Secret(b"topsecret")))


@pytest.mark.parametrize(
    "changes",
    [
        {"small": 256},
        {"small": -1},
        {"large": 1 << 64},
        {"four": b"123"},
        {"only_red": None},
        {"chosen": None},
        {"data": None},
        {"points": None},
        {"maybe": 7},
        {"small": "x"},
    ],
)
def test_a_field_that_cannot_be_written_is_a_value_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RED.replace(**changes).encode()


# -- every struct of the core


@each_struct
@settings(max_examples=10 * EFFORT)
@given(data=st.data())
def test_a_struct_comes_back_equal_from_bytes_and_from_json(
    cls: type[Struct], data: st.DataObject
) -> None:
    struct, outside = data.draw(with_given(cls))
    encoded = struct.encode(outside)
    decoded = cls.decode(encoded, outside)
    assert decoded == struct
    assert decoded.encode(outside) == encoded
    shown = json.loads(json.dumps(decoded.to_json(outside)))
    again = cls.from_json(shown, outside)
    assert again == struct
    assert again.encode(outside) == encoded


@each_struct
@settings(max_examples=4 * EFFORT)
@given(data=st.data())
def test_a_struct_cut_off_anywhere_or_with_a_byte_too_many_is_refused(
    cls: type[Struct], data: st.DataObject
) -> None:
    struct, outside = data.draw(with_given(cls))
    encoded = struct.encode(outside)
    if any(isinstance(field.codec, Rest) for field in cls._fields):
        cls.decode(encoded + b"\0", outside)
        return
    step = max(1, len(encoded) // 100)
    for end in range(0, len(encoded), step):
        assert refused(cls, encoded[:end], outside) in {Rule.TRUNCATED, Rule.VECTOR_OVERRUN}
    assert refused(cls, encoded + b"\0", outside) == Rule.TRAILING_BYTES


def outcome(cls: type[Struct], data: bytes, outside: Any) -> None:
    """Decodes whatever comes: what is accepted is the one encoding of its value."""
    rule = None
    try:
        struct = cls.decode(data, outside)
    except DecodeError as error:
        rule = error.rule or "none"
    if rule is not None:
        assert rule in CODEC_RULES
        return
    assert struct.encode(outside) == data
    assert cls.from_json(struct.to_json(outside), outside).encode(outside) == data


@each_struct
@settings(max_examples=10 * EFFORT)
@given(data=st.data())
def test_any_bytes_decode_to_what_encodes_to_them_or_raise_a_decode_error(
    cls: type[Struct], data: st.DataObject
) -> None:
    outside = data.draw(st.sampled_from(ContentType)) if needs_given(cls) else None
    outcome(cls, data.draw(st.binary(max_size=120)), outside)


@each_struct
@settings(max_examples=8 * EFFORT)
@given(data=st.data())
def test_an_encoding_with_changed_bytes_decodes_or_raises_a_decode_error(
    cls: type[Struct], data: st.DataObject
) -> None:
    struct, outside = data.draw(with_given(cls))
    changed = bytearray(struct.encode(outside))
    for _ in range(data.draw(st.integers(1, 3)) if changed else 0):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(
            st.sampled_from([0, 1, 2, 3, 0x3F, 0x40, 0x41, 0x80, 0xC0, 0xFF])
        )
    outcome(cls, bytes(changed), outside)


@given(st.binary(max_size=200))
@settings(max_examples=100 * EFFORT)
def test_any_bytes_are_a_ratchet_tree_or_raise_one_of_our_errors(data: bytes) -> None:
    for tree in (data, encode_opaque(data)):
        with suppress(DecodeError, RuleViolation):
            assert UnverifiedTree.decode(tree, suite_of(1)).trust().encode() == tree


# -- JSON


def test_json_has_the_names_and_values_of_the_rfc() -> None:
    sender = Sender(SenderType.NEW_MEMBER_PROPOSAL)
    assert sender.to_json() == {"sender_type": "new_member_proposal"}
    assert RED.to_json() == {
        "small": 1,
        "large": str(2**63),
        "colour": "red",
        "animal": "cat",
        "data": "6162",
        "secret": "73",
        "four": "31323334",
        "points": [{"x": 5}, {"x": 6}],
        "maybe": None,
        "only_red": "72",
        "chosen": "63",
    }


def test_wire_formats_are_in_lower_case_and_suites_as_the_registry_writes_them() -> None:
    assert Both(WireFormat(3), CipherSuite(1)).to_json() == {
        "wire_format": "mls_welcome",
        "cipher_suite": "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519",
    }


def json_with(**changes: Any) -> dict[str, Any]:
    shown: Any = RED.to_json()
    return {name: value for name, value in {**shown, **changes}.items() if value is not ...}


@pytest.mark.parametrize(
    "changes",
    [
        {"small": ...},
        {"small": 256},
        {"small": -1},
        {"small": True},
        {"small": 1.5},
        {"small": "x"},
        {"small": None},
        {"large": "18446744073709551616"},
        {"large": "9" * 10_000},
        {"colour": "blue"},
        {"colour": 3},
        {"colour": None},
        {"animal": "dog"},
        {"animal": 1 << 16},
        {"data": "0"},
        {"data": "zz"},
        {"data": 7},
        {"data": None},
        {"four": "3132"},
        {"points": {}},
        {"points": [7]},
        {"points": [{"x": 1, "y": 2}]},
        {"maybe": 7},
        {"maybe": ...},
        {"only_red": ...},
        {"colour": "green"},
        {"chosen": {"x": 1}},
        {"unknown": 1},
    ],
)
def test_json_that_is_not_the_struct_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError) as caught:
        Everything.from_json(json_with(**changes))
    assert caught.value.rule == Rule.JSON_MAPPING


@pytest.mark.parametrize("value", [None, 7, "x", [], [{}], True])
def test_json_that_is_no_object_is_refused(value: Any) -> None:
    with pytest.raises(DecodeError) as caught:
        Everything.from_json(value)
    assert caught.value.rule == Rule.JSON_MAPPING


def test_json_of_a_part_is_judged_by_what_stands_around_it() -> None:
    auth = FramedContentAuthData(b"s", b"t").to_json()
    content = {
        "group_id": "",
        "epoch": "0",
        "sender": {"sender_type": "member", "leaf_index": 0},
        "authenticated_data": "",
        "content_type": "application",
        "body": "",
    }
    with pytest.raises(DecodeError, match="confirmation_tag"):
        AuthenticatedContent.from_json(
            {"wire_format": "mls_private_message", "content": content, "auth": auth}  # type: ignore[dict-item]
        )


def test_an_unknown_registry_value_is_a_number_in_json() -> None:
    class One(Struct):
        proposal_type: ProposalType

    assert One(ProposalType(0x0A0A)).to_json() == {"proposal_type": 0x0A0A}
    assert One.from_json({"proposal_type": 0x0A0A}) == One(ProposalType(0x0A0A))


MUTATIONS: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 1 << 70, "", "0", "zz", "member", [], {}, [None], 1.5]
)


@each_struct
@settings(max_examples=8 * EFFORT)
@given(data=st.data())
def test_changed_json_is_a_struct_that_can_be_encoded_or_raises_a_decode_error(
    cls: type[Struct], data: st.DataObject
) -> None:
    struct, outside = data.draw(with_given(cls))
    shown = json.loads(json.dumps(struct.to_json(outside)))
    place = shown
    while True:
        key: Any = data.draw(
            st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
        )
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(MUTATIONS)
    with suppress(DecodeError):
        read = cls.from_json(shown, outside)
        assert cls.decode(read.encode(outside), outside) == read
