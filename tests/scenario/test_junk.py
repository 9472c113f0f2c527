"""Whatever bytes arrive: one of our errors, or what the true bytes give; never anything else."""

from __future__ import annotations

import functools

from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import CoterieError, DecodeError
from coterie.mls.framing import MLSMessage
from coterie.mls.group import CommitOptions, Group
from coterie.mls.key_package import KeyPackage, KeyPackageBundle
from coterie.mls.proposal import Add, Proposal
from coterie.mls.public_group import PublicGroup
from coterie.mls.rules import Rule
from tests.scenario.circle import Circle, Person
from tests.scenario.world import attempt


@functools.cache
def samples() -> tuple[Circle, Person, KeyPackageBundle, dict[str, bytes]]:
    circle = Circle("alice", "bob", "carol", private=False)
    alice, dave = circle["alice"].group, circle.person("dave")
    bundle = dave.bundle()
    circle.tell(circle["carol"].group.propose_update(), besides="carol")
    pending = alice.commit(
        [Proposal.of(Add(bundle.key_package))], now=circle.clock(), options=CommitOptions()
    )
    assert pending.welcome is not None
    return (
        circle,
        dave,
        bundle,
        {
            "commit": pending.message.encode(),
            "welcome": pending.welcome.encode(),
            "group info": alice.group_info().encode(),
            "bare group info": alice.group_info(tree=False).encode(),
            "tree": alice.tree.encode(),
            "key package": MLSMessage.of(bundle.key_package).encode(),
        },
    )


@st.composite
def damage(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with some changed, cut out or put in."""
    junk = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(junk) - 1))
        kind = draw(st.integers(0, 2))
        if kind == 0:
            junk[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == 1:
            del junk[place : place + draw(st.integers(1, 40))]
        else:
            junk[place:place] = draw(st.binary(min_size=1, max_size=4))
        if not junk:
            return b""
    return bytes(junk)


def take(name: str, data: bytes) -> object:
    """Gives bytes to whoever reads such bytes."""
    circle, dave, bundle, texts = samples()
    mine = (dave.key, dave.credential, dave.capabilities(), dave.config)
    if name == "tree":
        info = MLSMessage.read(texts["bare group info"])
        return PublicGroup.follow(info, dave.config.policy(), tree=data)
    message = MLSMessage.read(data)
    if name == "commit":
        return circle["bob"].group.receive(message)
    if name == "welcome":
        return Group.join(message, bundle, dave.config)
    if name == "key package":
        package = message.body
        if not isinstance(package, KeyPackage):
            raise DecodeError("no key package", rule=Rule.ENUM_VALUE)
        return circle["bob"].group.check_key_package(package)
    return Group.join_external(message, *mine, tree=texts["tree"])


@settings(max_examples=150)
@given(st.data())
def test_damaged_bytes_are_refused_by_one_of_our_errors(data: st.DataObject) -> None:
    texts = samples()[3]
    name = data.draw(st.sampled_from(sorted(texts)))
    junk = data.draw(damage(texts[name]))
    outcome = attempt(lambda: take(name, junk))
    if isinstance(outcome, CoterieError):
        assert outcome.rule is not None
    else:
        assert junk == texts[name], f"a damaged {name} was accepted"
