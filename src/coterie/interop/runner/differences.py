"""Where two members of one epoch differ: the first field of their GroupInfos, decoded as `coterie inspect` does."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from coterie.errors import CoterieError
from coterie.interop.inspecting import describe
from coterie.mls.tls import JSON

if TYPE_CHECKING:
    from coterie.interop.runner.world import Member

_OWN = frozenset({"signer", "signature"})
"""Fields of a GroupInfo that differ between members by right."""
_LONG = 64


def first_difference(one: JSON, other: JSON, path: str = "") -> tuple[str, JSON, JSON] | None:
    """The path of the first field in which two decoded structs differ, and both values."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys((*one, *other)):
            place = f"{path}.{key}" if path else key
            if found := first_difference(one.get(key), other.get(key), place):
                return found
        return None
    if isinstance(one, list) and isinstance(other, list):
        for number, (left, right) in enumerate(zip(one, other, strict=False)):
            if found := first_difference(left, right, f"{path}[{number}]"):
                return found
        if len(one) == len(other):
            return None
        return f"{path}.length", len(one), len(other)
    return None if one == other else (path, one, other)


def explained(members: list[Member]) -> str:
    """Names the first field in which the members' GroupInfos differ."""
    try:
        shown = [(member.name, _group_info(member)) for member in members]
    except CoterieError as error:
        return f"and the GroupInfos cannot be compared: {error}"
    for (name, one), (following, other) in pairwise(shown):
        if found := first_difference(one, other):
            path, left, right = found
            return f"first in {path}: {_short(left)} ({name}), {_short(right)} ({following})"
    return "though the GroupInfos are the same"


def _group_info(member: Member) -> JSON:
    answer = member.peer.GroupInfo(state_id=member.state, external_tree=False)
    return comparable(describe(answer.group_info).fields)


def comparable(fields: JSON) -> JSON:
    """A decoded message without what its signer alone decides: signature, and the order of extensions."""
    if isinstance(fields, list):
        return [comparable(each) for each in fields]
    if not isinstance(fields, dict):
        return fields
    kept: dict[str, JSON] = {}
    for key, value in fields.items():
        if key == "extensions" and isinstance(value, list):
            kept[key] = sorted((comparable(each) for each in value), key=str)
        elif key not in _OWN:
            kept[key] = comparable(value)
    return kept


def _short(value: JSON) -> str:
    text = str(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"
