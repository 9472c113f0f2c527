"""The wire codec of RFC 9420 §2.1: TLS presentation language with optional values and variable-size vectors.

A struct is declared once, as a class whose annotations are the RFC's fields in the RFC's order; the codec, the JSON
mapping, equality and `repr` follow from the declaration:

    class Certificate(Struct):
        cert_data: bytes                                        # opaque cert_data<V>

    class Sender(Struct):
        sender_type: SenderType                                 # an enum brings its own width
        leaf_index: Annotated[LeafIndex | None, Uint(4), When("sender_type", SenderType.MEMBER)] = None

`bytes` is `opaque x<V>`, `tuple[T, ...]` is `T x<V>`, `T | None` is `optional<T>` (unless a `When` says that presence
follows from another field), and everything else is an `Annotated` with one of the small codec classes below.

Strategy: when the class is made, one decoder and one encoder are generated for it as Python source, since a group of
50,000 has 100,000 structs to read. A decoded struct keeps the slice it came from, so what arrived is what is hashed,
and encoding it again is free. Lengths are compared with what is left of the buffer before anything is allocated.
"""

from __future__ import annotations

from coterie.mls.tls.codecs import (
    Codec,
    Enumerated,
    Fixed,
    Gen,
    Opaque,
    OptionalValue,
    Rest,
    Uint,
    json_name,
)
from coterie.mls.tls.enums import Uint8Enum, Uint16Enum, Uint16Registry
from coterie.mls.tls.nested import (
    GIVEN,
    EqualSized,
    Given,
    Interned,
    Lazy,
    Nested,
    Select,
    Vector,
    When,
    codec_of,
)
from coterie.mls.tls.struct import Field, Struct
from coterie.mls.tls.varint import (
    JSON,
    MAX_VECTOR_LENGTH,
    decode_varint,
    encode_opaque,
    encode_varint,
)

__all__ = [
    "GIVEN",
    "JSON",
    "MAX_VECTOR_LENGTH",
    "Codec",
    "Enumerated",
    "EqualSized",
    "Field",
    "Fixed",
    "Gen",
    "Given",
    "Interned",
    "Lazy",
    "Nested",
    "Opaque",
    "OptionalValue",
    "Rest",
    "Select",
    "Struct",
    "Uint",
    "Uint8Enum",
    "Uint16Enum",
    "Uint16Registry",
    "Vector",
    "When",
    "codec_of",
    "decode_varint",
    "encode_opaque",
    "encode_varint",
    "json_name",
]
