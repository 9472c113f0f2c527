"""What `coterie doctor` looks at; findings name no user, group, key or address, so that they can be shown around."""

from __future__ import annotations

import time
from dataclasses import dataclass

from coterie import __version__
from coterie.client import Client


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: whether it is good, what it is, and what to do where it is not."""

    good: bool
    what: str
    advice: str = ""


def diagnose(client: Client, *, online: bool, key_kind: str) -> list[Check]:
    """Everything that can be said of a profile; `key_kind` is what opens it (`coterie.storage.key.key_kind`)."""
    if not client.is_enrolled:
        return not_enrolled()
    checks = [_version()]
    checks.append(
        Check(online, "the service answers" if online else "the service cannot be reached",
              "check the network; what you send is kept until then")
    )  # fmt: skip
    checks += _device(client, key_kind)
    checks += _groups(client)
    return checks


def not_enrolled() -> list[Check]:
    """What there is to say where nobody has logged in."""
    advice = "get a code from the operator, then: coterie login NAME --code CODE"
    return [_version(), Check(good=False, what="this device is not enrolled", advice=advice)]


def _version() -> Check:
    return Check(good=True, what=f"coterie {__version__}")


def _device(client: Client, key_kind: str) -> list[Check]:
    due = client.identity.renewal_due(int(time.time()))
    packages = len(client.vault.packages(client.identity))
    return [
        Check(not due, "the certificate is renewed in time", "go online: it renews itself"),
        Check(packages > 0, f"key packages ready, so that others can add you: {packages}",
              "go online: new ones are published"),
        Check(key_kind != "given", _KEYS[key_kind],
              "it protects a copy of the database alone: to change that, log in anew where there is a keyring, or with "
              "COTERIE_PASSPHRASE set"),
    ]  # fmt: skip


_KEYS = {
    "keyring": "the storage key is in the system's keyring",
    "passphrase": "the storage key comes from a passphrase",
    "given": "the storage key lies in a file beside the data",
}

_ADVICE = {
    "stuck": "wait: this device has asked to be added again, which needs another member online; where nobody"
    " is left who could, an administrator's way out is: coterie reform GROUP --without WHOEVER-JAMMED-IT",
    "moving": "wait: the next group comes when a member who can make it is online",
    "stopped": "the service contradicted itself: ask the operator before you go on",
    "creating": "go online: it is finished then",
}


def _groups(client: Client) -> list[Check]:
    states: dict[str, int] = {}
    waiting = 0
    for group in client.groups():
        states[group.status] = states.get(group.status, 0) + 1
        waiting += group.waiting() if group.status == "active" else 0
    checks = [
        Check(status in {"active", "left"}, f"groups {status}: {count}", _ADVICE.get(status, ""))
        for status, count in sorted(states.items())
    ]
    asked = sum(len(group.invitations()) for group in client.groups())
    if asked:
        checks.append(
            Check(good=False, what=f"re-formed groups that wait for your word: {asked}",
                  advice="coterie invitations, then coterie follow GROUP or coterie decline GROUP")
        )  # fmt: skip
    checks.append(
        Check(waiting == 0, f"waiting to be sent: {waiting}", "go online: they are sent then")
    )
    for what, count in sorted(client.tools.counters.items()):
        checks.append(Check(good=True, what=f"{what} since the start: {count}"))
    return checks
