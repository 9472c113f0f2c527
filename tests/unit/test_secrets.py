"""No secret shows: every class that can hold one is found by its annotations, made, and shown in every way there is.

Structs and dataclasses are made from their annotations, with known secrets in every place for one. What is made
otherwise is met in the life of a group and of two clients, where everything that can be reached is shown, not only what
is listed.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import gc
import importlib
import inspect
import logging
import pickle
import pkgutil
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import coterie
from coterie.authentication.app import _Face
from coterie.client.epoch_keys import EpochKeys
from coterie.client.identity import SigningKey
from coterie.client.keeping import KeepingStep
from coterie.client.notes import StepNotes
from coterie.client.vault import Step
from coterie.errors import CoterieError
from coterie.mls.crypto import SignaturePrivateKey, suite_of
from coterie.mls.framing import MLSMessage
from coterie.mls.group import Group
from coterie.mls.group.state import StoredEpoch
from coterie.mls.hpke import HPKEPrivateKey
from coterie.mls.proposal import Proposal, Remove
from coterie.mls.secret import Confidential, Secret
from coterie.mls.tls import Struct
from coterie.mls.tree_math import LeafIndex
from coterie.mls.welcome import GroupSecrets
from coterie.storage import StorageKey
from coterie.storage.transaction import Transaction
from coterie.transport import api
from tests.client_world import world
from tests.rules.world import NOW, Store, make

ROOMS = (
    "coterie.mls",
    "coterie.storage",
    "coterie.identity",
    "coterie.transport",
    "coterie.client",
    "coterie.delivery",
    "coterie.authentication",
)
"""Where secrets live; what drives tests and interoperation shows them on purpose."""
NEVER_MADE = {Confidential: "a base"}
MARK = bytes(range(0xA0, 0xC0))
"""The secret in everything that is made from annotations; each byte is escaped or not, as it comes."""
SHORT_LIVED = {_Face, KeepingStep, SigningKey, Step, StepNotes, Transaction}
"""Made for one request or one step, and shown as every object is."""
LONGEST_KEY = 66
"""The private key of P-521, in bytes."""
SUITE = suite_of(1)


def _modules() -> list[ModuleType]:
    found = pkgutil.walk_packages(coterie.__path__, "coterie.")
    return [importlib.import_module(m.name) for m in found if m.name.startswith(ROOMS)]


@cache
def _classes() -> dict[str, list[type]]:
    """Every class of the rooms, by name."""
    found: dict[str, list[type]] = {}
    for module in _modules():
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__:
                found.setdefault(value.__name__, []).append(value)
    return found


def _mentioned(cls: type) -> Iterator[type]:
    """The classes that the annotations of a class and of its constructor name."""
    return _named_in(cls, " ".join(map(str, _annotations(cls).values())))


def _named_in(cls: type, text: str) -> Iterator[type]:
    scope = vars(importlib.import_module(cls.__module__))
    for word in re.findall(r"\w+", text):
        known = scope.get(word)
        yield from [known] if isinstance(known, type) else _classes().get(word, [])


def _annotations(cls: type) -> dict[str, Any]:
    constructor = cls.__dict__.get("__init__")
    if isinstance(constructor, FunctionType) and not dataclasses.is_dataclass(cls):
        given = {**constructor.__annotations__}
        given.pop("return", None)
        return {**inspect.get_annotations(cls), **given}
    return inspect.get_annotations(cls)


@cache
def holders() -> list[type]:
    """Every class that can hold a secret: directly, through a field, or as a struct with a hidden field."""
    every = [cls for group in _classes().values() for cls in group]
    found: set[type] = {cls for cls in every if issubclass(cls, Confidential)}
    found |= {cls for cls in every if issubclass(cls, Struct) and cls._confidential}
    while new := {c for c in every if c not in found and found & set(_mentioned(c))}:
        found |= new
    return sorted(found - NEVER_MADE.keys(), key=lambda cls: (cls.__module__, cls.__qualname__))


class Anything:
    """Stands in for what is no secret."""

    def __getattr__(self, name: str) -> Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: object) -> Anything:
        return self


ANYTHING = Anything()


def _made_from_annotations(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) or issubclass(cls, Struct)


def _made(cls: type, depth: int = 0) -> Any:
    """An instance with the known secret wherever there is a place for one."""
    if cls is Secret:
        return Secret(MARK)
    if cls is HPKEPrivateKey:
        return SUITE.load_hpke_key(MARK)
    if cls is SignaturePrivateKey:
        return SUITE.load_signature_key(MARK)
    if cls is StorageKey:
        return StorageKey.given(MARK)
    if not _made_from_annotations(cls) or depth > 4:
        return None
    names = [f.name for f in cls._fields] if issubclass(cls, Struct) else _init_fields(cls)
    return cls(**{name: _value(cls, name, depth) for name in names})


def _init_fields(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls) if field.init]


def _value(cls: type, name: str, depth: int) -> Any:
    if issubclass(cls, Struct):
        field = next(f for f in cls._fields if f.name == name)
        if field.codec.hidden and not field.codec.nests:
            return Secret(MARK) if getattr(field.codec, "cast", bytes) is Secret else MARK
    texts = (vars(base).get("__annotations__", {}).get(name) for base in cls.__mro__)
    text = str(next(text for text in texts if text is not None))
    inner = [c for c in _named_in(cls, text) if c in holders()]
    made = _made(inner[0], depth + 1) if inner else ANYTHING
    if re.match(r"(dict|Mapping)", text):
        return {1: made}
    return (made,) if re.match(r"(tuple|list|Sequence)", text) else made


# -- How secrets show


def forms(secret: bytes) -> set[str]:
    """What parts of a secret look like where it leaks."""
    found = set()
    for part in (secret[:8], secret[len(secret) // 2 :][:8], secret[-8:]):
        found |= {part.hex(), part.hex().upper(), part.hex(" "), part.hex(":"), repr(part)[2:-1]}
        found |= {str(list(part))[1:-1], part.decode("latin1")}
    for start in range(3):
        encoded = base64.b64encode(secret[start : start + (len(secret) - start) // 3 * 3])
        found |= {encoded[:12].decode(), encoded[:12].decode().translate({43: "-", 47: "_"})}
    return found


def assert_hidden(text: str, secrets: Iterable[bytes]) -> None:
    for secret in secrets:
        if len(secret) < 12 or len(set(secret)) < 8:
            continue
        for form in forms(secret):
            place = text.find(form)
            assert place < 0, f"a secret shows as {form!r} in {text[max(place - 150, 0) : place]!r}"


SHOWN: tuple[Callable[[Any], str], ...] = (
    repr,
    str,
    lambda value: f"{value}",
    lambda value: "%s %r" % (value, value),  # noqa: UP031 - the old form is what is tested
    lambda value: ascii([value]),
    lambda value: str(ValueError("wrong", value)),
    lambda value: "".join(traceback.format_exception(KeyError(value))),
    lambda value: logging.Formatter().format(
        logging.LogRecord("x", 0, "x", 0, "%s %r", (value, value), None)
    ),
)


def shown(value: Any) -> str:
    return "\n".join(show(value) for show in SHOWN)


def pickled(value: Any) -> str:
    """What the pickle has, if there is one; also as it is in its own characters."""
    texts = []
    for protocol in (0, 2, pickle.HIGHEST_PROTOCOL):
        try:
            texts.append(pickle.dumps(value, protocol).decode("latin1"))
        except (TypeError, pickle.PicklingError, AttributeError):
            continue
    return "\n".join(texts)


def reachable(roots: Iterable[Any]) -> list[Any]:
    """Everything that the collector reaches, without modules, classes and functions."""
    seen: dict[int, Any] = {}
    todo = list(roots)
    while todo:
        value = todo.pop()
        if id(value) in seen or isinstance(value, type | ModuleType | FunctionType):
            continue
        seen[id(value)] = value
        todo += gc.get_referents(value)
    return list(seen.values())


# -- Every class by its annotations


def _holds_the_mark(value: Any) -> bool:
    return any(isinstance(each, bytes) and each == MARK for each in reachable([value]))


BUILT = [cls for cls in holders() if _holds_the_mark(_made(cls))]


@pytest.mark.parametrize("cls", BUILT, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_a_class_with_a_place_for_a_secret_does_not_show_it(cls: type) -> None:
    made = _made(cls)
    assert_hidden(shown(made), [MARK])
    assert_hidden(pickled(made), [MARK])


def test_a_leak_is_found_in_every_form() -> None:
    class Careless:
        def __repr__(self) -> str:
            return f"Careless({MARK!r})"

    for text in (
        shown(Careless()),
        MARK.hex(),
        f"{list(MARK)}",
        base64.b64encode(b"x" + MARK).decode(),
    ):
        with pytest.raises(AssertionError, match="a secret shows"):
            assert_hidden(text, [MARK])
    with pytest.raises(AssertionError, match="a secret shows"):
        assert_hidden(pickled([MARK]), [MARK])


# -- What is met in the life of a group and of clients


def _life_of_a_group() -> list[Any]:
    made = make()
    alice, bob = made.member("alice"), made.member("bob")
    pending = alice.commit([Proposal.of(Remove(LeafIndex(3)))], now=NOW)
    staged = bob.receive(pending.message.encode(), now=NOW)
    sent = made.member("carol").encrypt(b"correct horse battery staple")
    opened = bob.receive(sent.encode(), now=NOW)
    bundle = made.bundle("zoe")
    forger = made.forger()
    tree, _ = forger.epoch.tree.with_added([bundle.key_package.leaf_node])
    welcome = MLSMessage.read(forger.welcome(bundle, tree))
    joined = Group.join(welcome, bundle, made.config)
    delta = joined.save()
    entries = {key: value for key, value in delta.puts.items() if key[:2] not in {b"n/", b"i/"}}
    again = Group.load(entries, Store({**made.stores["bob"], **delta.puts}), made.config)
    keys = EpochKeys.derive(joined.export_secret, bytes(32))
    return [made, alice, bob, pending, staged, opened, bundle, joined, delta, again, keys]


def _secrets_in(objects: Iterable[Any]) -> set[bytes]:
    # What is longer than any key is the plaintext of a GroupInfo, which its parts show rightly.
    found = {bytes(v) for v in objects if isinstance(v, Secret) and len(v) <= LONGEST_KEY}
    for value in objects:
        if isinstance(value, HPKEPrivateKey | SignaturePrivateKey):
            found.add(bytes(value.private_bytes()))
    return found


def _of_ours(objects: Iterable[Any], most: int = 4) -> list[Any]:
    """A few instances of each class of ours."""
    count: Counter[type] = Counter()
    found = []
    for value in objects:
        if type(value).__module__.startswith("coterie."):
            count[type(value)] += 1
            if count[type(value)] <= most:
                found.append(value)
    return found


def _not_pickled(self: object, protocol: object) -> Any:
    raise TypeError("a database cannot be pickled")


def test_what_a_group_is_made_of_shows_none_of_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    # The caller's store is no business of the group's; here it is a dict, elsewhere a database.
    monkeypatch.setattr(Store, "__reduce_ex__", _not_pickled)
    objects = reachable(_life_of_a_group())
    secrets = _secrets_in(objects)
    assert len(secrets) > 60
    ours = _of_ours(objects)
    assert {type(value).__name__ for value in ours} >= {"Group", "KeyRing", "SecretTree", "Delta"}
    assert_hidden("\n".join(map(shown, ours)), secrets | {b"correct horse battery staple"})
    assert_hidden("\n".join(map(pickled, ours)), secrets)


Call = Callable[[], object]
DIGITS = MARK.hex()


def _failures() -> dict[str, Call]:
    """What goes wrong with a secret at hand."""
    made = make()
    bundle, alice = made.bundle("zoe"), made.member("alice")
    epoch = alice._epoch
    stored = dict(made.stores["alice"])
    entries = {key: value for key, value in stored.items() if key[:2] not in {b"n/", b"i/"}}
    secrets: dict[str, Any] = {"joiner_secret": DIGITS, "path_secret": None, "psks": []}
    cut = {key: value[:-1] for key, value in entries.items()}
    mark = Secret(MARK)
    return {
        "a key of a wrong length": lambda: SUITE.load_hpke_key(MARK[:-1]),
        "a signature key of a wrong length": lambda: SUITE.load_signature_key(MARK + b"x"),
        "a storage key of a wrong length": lambda: StorageKey.given(MARK + b"x"),
        "JSON with a list": lambda: GroupSecrets.from_json({**secrets, "joiner_secret": [DIGITS]}),
        "JSON with a letter": lambda: GroupSecrets.from_json(
            {**secrets, "joiner_secret": DIGITS + "z"}
        ),
        "JSON of a string": lambda: GroupSecrets.from_json(DIGITS),
        "JSON without a field": lambda: GroupSecrets.from_json({"joiner_secret": DIGITS}),
        "a struct with a text": lambda: GroupSecrets(mark, mark, ()).encode(),  # type: ignore[arg-type]
        "a token of a wrong length": lambda: api.ReadInbox(bytes(32), MARK + b"x").encode(),
        "a stored epoch that is cut off": lambda: StoredEpoch.decode(entries[b"g"][1:-1]),
        "a saved group that is cut off": lambda: Group.load(cut, stored, made.config),
        "a Welcome for another": lambda: Group.join(
            MLSMessage.read(made.forger().welcome(bundle, sealed_to=epoch.private.leaf_key.public)),
            bundle,
            made.config,
        ),
        "a sealed message that was changed": lambda: SUITE.aead_open(mark, MARK[:12], b"", MARK),
        "a MAC that does not fit": lambda: epoch.suite.verify_mac(
            epoch.secrets.membership_key, b"", bytes(32), rule="x"
        ),
    }


@pytest.mark.parametrize("what", sorted(_failures()))
def test_an_error_shows_no_secret(what: str) -> None:
    call = _failures()[what]
    with pytest.raises((CoterieError, ValueError, TypeError)) as caught:
        call()
    texts = [
        *traceback.format_exception(caught.value),
        repr(caught.value),
        repr(vars(caught.value)),
    ]
    lines = [line for line in "\n".join(texts).split("\n") if not line.startswith("    ")]
    objects = reachable([make().member("alice"), caught.value.args])
    assert_hidden("\n".join(lines), {MARK} | _secrets_in(objects))


def test_what_is_met_and_what_is_made_are_all_classes_that_hold_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And neither a client's objects nor what is logged meanwhile show its secrets."""
    caplog.set_level(logging.DEBUG)

    async def story() -> list[Any]:
        async with world(tmp_path) as made:
            alice, bob = [await made.device(name) for name in ("alice", "bob")]
            group = await alice.create_group("Friends")
            await group.add("bob")
            await made.settle()
            await bob.groups()[0].send("correct horse battery staple")
            await made.settle()
            objects = reachable([made, alice, bob, alice.groups(), bob.groups()])
            secrets = _secrets_in(objects)
            assert len(secrets) > 25
            ours = _of_ours(objects)
            assert_hidden("\n".join(map(shown, ours)), secrets)
            assert_hidden("\n".join(map(pickled, ours)), secrets)
            assert caplog.text
            assert_hidden(caplog.text, secrets)
            return ours

    met = {type(value) for value in asyncio.run(story())}
    met |= {type(value) for value in _of_ours(reachable(_life_of_a_group()))}
    met |= {base for cls in met for base in cls.__mro__}
    missing = set(holders()) - set(BUILT) - met
    assert missing == SHORT_LIVED
    for cls in missing:
        assert cls.__repr__ is object.__repr__  # type: ignore[comparison-overlap]
        assert cls.__str__ is object.__str__  # type: ignore[comparison-overlap]


def test_what_outlives_an_epoch_keeps_none_of_the_bytes_that_it_was_loaded_from() -> None:
    epoch = make().member("bob")._epoch
    secrets = [bytes(epoch.secrets.init_secret), bytes(epoch.private.leaf_key.private_bytes())]
    kept = [each for each in reachable([epoch.context]) if isinstance(each, bytes)]
    assert kept
    assert not [each for each in kept for secret in secrets if secret in each]
