"""A history of transactions that a seed fixes, and what a profile must hold after each: for crash tests of storage.

`play(profile, model, n)` runs step n on both. A model is a plain picture of everything that can be read, so that the
profile after a crash is compared as a whole. Run as a script it plays on until it is killed (see test_storage_crash).
"""

from __future__ import annotations

import random
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from coterie.storage import Message, MessageState, Profile, StorageKey, Transaction

KEY = b"a storage key that only tests use"[:32]
SPACES = ("group/1", "group/2", "client")


@dataclass
class Model:
    """Everything that a profile shows."""

    entries: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    messages: dict[bytes, Message] = field(default_factory=dict)
    intents: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    steps: int = 0
    numbers: int = 0


def play(profile: Profile | None, model: Model, seed: int) -> None:
    """Runs the next step on the model, and on the profile if there is one."""
    model.steps += 1
    rng = random.Random(f"{seed}:{model.steps}")
    with nullcontext() if profile is None else profile.transaction() as transaction:
        for _ in range(rng.randint(1, 6)):
            rng.choice(_CHANGES)(model, transaction, rng)
        _put(model, transaction, "client", b"step", str(model.steps).encode())


def at(steps: int, seed: int) -> Model:
    """The model after so many steps."""
    model = Model()
    for _ in range(steps):
        play(None, model, seed)
    return model


def seen_in(profile: Profile) -> Model:
    """What a profile shows, with SQLite's own checks of its tables and of the index of words."""
    view = profile.view
    assert profile._database.run("PRAGMA integrity_check") == [("ok",)]
    profile._database.run("INSERT INTO word(word, rank) VALUES ('integrity-check', 1)")
    found = Model(
        {space: view.entries(space) for space in view.spaces()},
        # Positions may have gaps; what counts is the order.
        {
            message.message_id: replace(message, position=number)
            for number, message in enumerate(view.messages(b"talk", limit=10**6), 1)
        },
        {intent.number: (intent.state, intent.payload) for intent in view.intents()},
        profile.step,
    )
    [(found.numbers,)] = profile._database.run(
        "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'intent'"
    ) or [(0,)]
    return found


def _put(
    model: Model, transaction: Transaction | None, space: str, key: bytes, value: bytes
) -> None:
    model.entries.setdefault(space, {})[key] = value
    if transaction is not None:
        transaction.put(space, key, value, secret=not key.startswith(b"n/"))


def _put_some(model: Model, transaction: Transaction | None, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        key = rng.choice((b"s/", b"n/", b"e/")) + rng.randbytes(1)
        _put(
            model, transaction, rng.choice(SPACES), key, rng.randbytes(rng.choice((20, 200, 9000)))
        )


def _drop_some(model: Model, transaction: Transaction | None, rng: random.Random) -> None:
    space = rng.choice(SPACES)
    prefix = rng.choice((b"s/", b"n/", b"e/"))
    kept = {k: v for k, v in model.entries.get(space, {}).items() if not k.startswith(prefix)}
    model.entries.pop(space, None)
    if kept:
        model.entries[space] = kept
    if transaction is not None:
        transaction.delete_prefix(space, prefix)


def _talk(model: Model, transaction: Transaction | None, rng: random.Random) -> None:
    number = rng.randint(1, 40)
    message = Message(
        b"talk", b"%d" % number, "alice", number, number, text=f"word{number} of many"
    )
    known = message.message_id in model.messages
    if not known:
        position = len(model.messages) + 1
        model.messages[message.message_id] = replace(message, position=position)
    if transaction is not None:
        assert transaction.add_message(message) != known


def _state(model: Model, transaction: Transaction | None, rng: random.Random) -> None:
    if not model.messages:
        return
    name = rng.choice(list(model.messages))
    model.messages[name] = replace(model.messages[name], state=MessageState.SENT)
    if transaction is not None:
        transaction.update_state(b"talk", name, MessageState.SENT)


def _want(model: Model, transaction: Transaction | None, rng: random.Random) -> None:
    model.numbers += 1
    payload = rng.randbytes(rng.choice((10, 5000)))
    model.intents[model.numbers] = ("new", payload)
    if transaction is not None:
        assert transaction.add_intent(b"talk", "send", payload) == model.numbers


def _settle(model: Model, transaction: Transaction | None, rng: random.Random) -> None:
    if not model.intents:
        return
    number = rng.choice(list(model.intents))
    if rng.random() < 0.5:
        del model.intents[number]
        if transaction is not None:
            transaction.remove_intent(number)
    else:
        model.intents[number] = ("sealed", rng.randbytes(50))
        if transaction is not None:
            state, payload = model.intents[number]
            transaction.update_intent(number, state=state, payload=payload)


_CHANGES = (_put_some, _put_some, _drop_some, _talk, _talk, _state, _want, _settle)


def main(directory: str, seed: str) -> None:
    """Plays on from where the profile stands, and says after each step which one is stored."""
    with Profile.open(Path(directory), StorageKey.given(KEY), create=True) as profile:
        model = at(profile.step, int(seed))
        while True:
            play(profile, model, int(seed))
            sys.stdout.write(f"{model.steps}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
