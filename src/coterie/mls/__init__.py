"""The Messaging Layer Security protocol, RFC 9420, as code without input or output.

The names here are what an embedding program needs; everything else is in the modules, which follow the order of the
RFC. A name's module is imported when the name is first used: who needs the public half alone (a server) never loads
the half that knows of secrets.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coterie.mls.credential import AcceptAnything, Authenticator, Credential
    from coterie.mls.crypto import SignaturePrivateKey, Suite, suite_of
    from coterie.mls.extension import Capabilities, Extension, capabilities
    from coterie.mls.external import external_proposal, new_member_add
    from coterie.mls.framing import MLSMessage
    from coterie.mls.group import (
        ApplicationMessage,
        CommitOptions,
        Config,
        Delta,
        ExternalJoin,
        Group,
        Limits,
        Member,
        OwnMessage,
        PendingCommit,
        ProposalReceived,
        SecretHeld,
        StagedCommit,
    )
    from coterie.mls.key_package import (
        KeyPackage,
        KeyPackageBundle,
        VerifiedKeyPackage,
        create_key_package,
    )
    from coterie.mls.leaf_node import Lifetime
    from coterie.mls.proposal import (
        Add,
        GroupContextExtensions,
        PreSharedKey,
        Proposal,
        ReInit,
        Remove,
    )
    from coterie.mls.public_group import PublicGroup
    from coterie.mls.types import CipherSuite
    from coterie.mls.validation import CustomProposal, Policy

_HOMES = {
    "credential": "AcceptAnything Authenticator Credential",
    "crypto": "SignaturePrivateKey Suite suite_of",
    "extension": "Capabilities Extension capabilities",
    "external": "external_proposal new_member_add",
    "framing": "MLSMessage",
    "group": "ApplicationMessage CommitOptions Config Delta ExternalJoin Group Limits Member OwnMessage PendingCommit "
    "ProposalReceived SecretHeld StagedCommit",
    "key_package": "KeyPackage KeyPackageBundle VerifiedKeyPackage create_key_package",
    "leaf_node": "Lifetime",
    "proposal": "Add GroupContextExtensions PreSharedKey Proposal ReInit Remove",
    "public_group": "PublicGroup",
    "types": "CipherSuite",
    "validation": "CustomProposal Policy",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "AcceptAnything",
    "Add",
    "ApplicationMessage",
    "Authenticator",
    "Capabilities",
    "CipherSuite",
    "CommitOptions",
    "Config",
    "Credential",
    "CustomProposal",
    "Delta",
    "Extension",
    "ExternalJoin",
    "Group",
    "GroupContextExtensions",
    "KeyPackage",
    "KeyPackageBundle",
    "Lifetime",
    "Limits",
    "MLSMessage",
    "Member",
    "OwnMessage",
    "PendingCommit",
    "Policy",
    "PreSharedKey",
    "Proposal",
    "ProposalReceived",
    "PublicGroup",
    "ReInit",
    "Remove",
    "SecretHeld",
    "SignaturePrivateKey",
    "StagedCommit",
    "Suite",
    "VerifiedKeyPackage",
    "capabilities",
    "create_key_package",
    "external_proposal",
    "new_member_add",
    "suite_of",
]


def __getattr__(name: str) -> object:
    """Imports the module that a public name lives in."""
    home = _HOME_OF.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
