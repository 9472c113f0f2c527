"""A group's rules as the application sees and changes them; what enforces them is `content.ProfileRules`.

A change is kept as what is wanted ("make bob an administrator"), not as the profile that would follow: after a lost
race it is applied to the profile of the new epoch, so that two members who change different things lose nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from coterie.client.content import DAY, GroupProfile, Links, WhoMay
from coterie.errors import StateError

LEAST_REPLACE_AFTER = DAY
"""Seconds for which somebody who was added may be offline at least, whatever a group's rules say."""
LEAST_EVICT_AFTER = 14 * DAY
"""The same for the oldest keys: devices replace them about once a week."""
_LONGEST = 10 * 365 * DAY


@dataclass(frozen=True, slots=True)
class GroupRules:
    """The rules of a group: `admins` or `members` for who may do a thing, `off`, `ask` or `open` for links."""

    may_add: str
    may_remove: str
    may_rename: str
    links: str
    receipts: bool
    """Whether members are asked to say which texts they have shown."""
    replace_after: int
    """Seconds after which a device that was added and never appeared is added anew; 0 for never."""
    evict_after: int
    """Seconds without new keys after which a device is removed; 0 for never."""


def rules_of(profile: GroupProfile) -> GroupRules:
    """The rules in a profile."""
    return GroupRules(
        profile.may_add.name.lower(),
        profile.may_remove.name.lower(),
        profile.may_rename.name.lower(),
        profile.links.name.lower(),
        bool(profile.receipts),
        profile.replace_after,
        profile.evict_after,
    )


def encode_change(
    rules: Mapping[str, object],
    *,
    admit: Sequence[str] = (),
    dismiss: Sequence[str] = (),
    revoke_links: bool = False,
) -> bytes:
    """A change for an intent: new values by the names of `GroupRules`, who is made and unmade administrator.

    Raises `StateError` for a rule that there is not, or a value that it does not have.
    """
    for name, value in rules.items():
        _value(name, value)
    return json.dumps(
        {
            "rules": dict(rules),
            "admit": list(admit),
            "dismiss": list(dismiss),
            "revoke_links": revoke_links,
        }
    ).encode()


def changed(profile: GroupProfile, change: bytes, epoch: int) -> GroupProfile:
    """The profile after a change that takes effect with the epoch after `epoch`.

    Raises `StateError` where nobody would be administrator.
    """
    wanted: dict[str, Any] = json.loads(change)
    values = {name: _value(name, value) for name, value in wanted["rules"].items()}
    dismissed = {user.encode() for user in wanted["dismiss"]}
    admins = [admin for admin in profile.admins if admin not in dismissed]
    admins += [user.encode() for user in wanted["admit"] if user.encode() not in admins]
    if not admins:
        msg = "a group has an administrator: make somebody else one first"
        raise StateError(msg)
    if wanted["revoke_links"]:
        values["links_since"] = epoch + 1
    return profile.replace(admins=tuple(admins), **values)


def _value(name: str, value: object) -> object:
    kinds = {"may_add": WhoMay, "may_remove": WhoMay, "may_rename": WhoMay, "links": Links}
    if name in kinds:
        words = {str(kind.name).lower(): kind for kind in kinds[name]}
        if value in words:
            return words[str(value)]
        msg = f"{name} is one of {', '.join(words)}, not {value!r}"
        raise StateError(msg)
    least = {"replace_after": LEAST_REPLACE_AFTER, "evict_after": LEAST_EVICT_AFTER}
    if name == "receipts" and isinstance(value, bool):
        return int(value)
    if name in least and type(value) is int and (value == 0 or least[name] <= value <= _LONGEST):
        return value
    if name in least:
        days = f"{least[name] // DAY} to {_LONGEST // DAY} days"
        msg = f"{name} is {days}, or 0 for never, not {_shown(value)}"
    elif name == "receipts":
        msg = f"receipts are on or off, not {value!r}"
    else:
        msg = f"a group has no rule {name!r}; the rules are {', '.join(GroupRules.__slots__)}"
    raise StateError(msg)


def _shown(value: object) -> str:
    return f"{value / DAY:g} days" if type(value) is int else repr(value)


def explained(rules: GroupRules) -> dict[str, str]:
    """Each rule as a sentence, by its name."""
    who = {"admins": "administrators", "members": "everybody"}
    links = {
        "off": "there are no links to this group",
        "ask": f"who has a link may ask to come in; {_deciding(rules)} decide",
        "open": f"who has a link and asks is added when {_adding(rules)} is online",
    }
    return {
        "may_add": f"{who[rules.may_add]} may add members",
        "may_remove": f"{who[rules.may_remove]} may remove members",
        "may_rename": f"{who[rules.may_rename]} may rename the group",
        "links": links[rules.links],
        "receipts": "members say which texts they have shown"
        if rules.receipts
        else "nobody says which texts they have shown",
        "replace_after": f"who does not appear for {rules.replace_after // DAY} days is added anew"
        if rules.replace_after
        else "who never appears is left as it is",
        "evict_after": f"devices away for {rules.evict_after // DAY} days are removed"
        if rules.evict_after
        else "devices that are away stay members",
    }


def _deciding(rules: GroupRules) -> str:
    return "administrators" if rules.may_add == "admins" else "members"


def _adding(rules: GroupRules) -> str:
    return "an administrator" if rules.may_add == "admins" else "a member"


def differences(before: GroupRules, after: GroupRules) -> list[str]:
    """What is another rule now, as sentences."""
    old, new = asdict(before), explained(after)
    return [new[name] for name, value in asdict(after).items() if value != old[name]]
