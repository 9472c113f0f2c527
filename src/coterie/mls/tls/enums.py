"""Closed enums and open registries (RFC 9420 §2.1, §13)."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class Uint8Enum(IntEnum):
    """A closed enum of one byte: other values do not decode."""


class Uint16Enum(IntEnum):
    """A closed enum of two bytes: other values do not decode."""


class Uint16Registry(IntEnum):
    """An open IANA registry of two-byte values: unknown ones survive decoding, JSON and encoding (§13)."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int) or not 0 <= value <= 0xFFFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"0x{value:04x}"
        member._value_ = value
        return member

    @property
    def is_known(self) -> bool:
        """Whether the registry names this value here."""
        return self._value_ in type(self)._value2member_map_
