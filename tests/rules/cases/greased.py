"""§13.5: what needs a GREASE value that all members list. They list it to be ignored; nobody supports it."""

from __future__ import annotations

from functools import cache
from typing import Any

from coterie.mls.credential import Credential
from coterie.mls.crypto import suite_of
from coterie.mls.extension import Capabilities, Extension, RequiredCapabilities
from coterie.mls.proposal import Add, GroupContextExtensions
from coterie.mls.rules import Rule
from coterie.mls.types import CredentialType, ExtensionType, ProposalType
from tests.rules.cases.registry import case
from tests.rules.check import join
from tests.rules.forging import Forger, key_package
from tests.rules.world import NOW, Attack, Call, Join, World

GREASE = 0x0A0A
EXTENSION = Extension(ExtensionType(GREASE), b"whatever")


class Greased(World):
    """A group whose members all list one GREASE value wherever it may be listed."""

    @property
    def capabilities(self) -> Capabilities:
        """What every member lists."""
        own = super().capabilities
        return own.replace(
            extensions=(*own.extensions, ExtensionType(GREASE)),
            proposals=(*own.proposals, ProposalType(GREASE)),
            credentials=(*own.credentials, CredentialType(GREASE)),
        )


@cache
def _group(suite: int) -> Greased:
    return Greased(suite_of(suite), b"greased", warm=False)


def _committed(w: World, proposal: Any) -> Attack:
    group = _group(w.suite.cipher_suite)
    sent = group.forger().commit([proposal])
    return Call(lambda: group.member("bob").receive(sent.data, now=NOW))


def _required(**types: Any) -> GroupContextExtensions:
    required = RequiredCapabilities(**types).encode()
    return GroupContextExtensions((Extension(ExtensionType.REQUIRED_CAPABILITIES, required),))


def _add(w: World) -> Add:
    credential = Credential(CredentialType(GREASE), b"yan")
    return Add(key_package(w.suite, w.bundle("yan"), leaf={"credential": credential}))


@case(Rule.EXTENSION_SUPPORT, "a group extension of a GREASE type that all members list")
def _(w: World, f: Forger) -> Attack:
    return _committed(w, GroupContextExtensions((EXTENSION,)))


@case(Rule.REQUIRED_CAPABILITIES_SUPPORT, "a required extension of a GREASE type")
def _(w: World, f: Forger) -> Attack:
    return _committed(w, _required(extension_types=(ExtensionType(GREASE),)))


@case(Rule.REQUIRED_CAPABILITIES_SUPPORT, "a required proposal of a GREASE type")
def _(w: World, f: Forger) -> Attack:
    return _committed(w, _required(proposal_types=(ProposalType(GREASE),)))


@case(Rule.REQUIRED_CAPABILITIES_SUPPORT, "a required credential of a GREASE type")
def _(w: World, f: Forger) -> Attack:
    return _committed(w, _required(credential_types=(CredentialType(GREASE),)))


@case(Rule.LEAF_CREDENTIAL_SUPPORT, "a credential of a GREASE type that all members list")
def _(w: World, f: Forger) -> Attack:
    return _committed(w, _add(_group(w.suite.cipher_suite)))


@case(Rule.LEAF_CREDENTIAL_IN_USE, "a member of a tree with a credential of a GREASE type")
def _(w: World, f: Forger) -> Attack:
    group = _group(w.suite.cipher_suite)
    forger, bundle = group.forger(), group.bundle("zoe")
    leaves = [_add(group).key_package.leaf_node, bundle.key_package.leaf_node]
    tree, _ = forger.epoch.tree.with_added(leaves)
    attack = Join(bundle, forger.welcome(bundle, tree))
    return Call(lambda: join(attack, group, None))
