"""Entries and intents: what is put is read, in order, and what is dropped is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import StateError
from coterie.mls.group import Delta
from coterie.storage import Profile, StorageKey
from coterie.storage.view import after_prefix

keys = st.binary(max_size=3) | st.sampled_from([b"\xff", b"\xff\xff", b"n/", b"n/a", b"n0"])


@pytest.fixture(scope="module")
def shared_profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Profile]:
    path: Path = tmp_path_factory.mktemp("profile")
    with Profile.open(path, StorageKey.given(bytes(32)), create=True, durable=False) as profile:
        yield profile


@given(
    puts=st.dictionaries(keys, st.binary(max_size=40), max_size=12),
    prefix=keys,
    excluded=st.lists(keys, max_size=3),
    public=st.booleans(),
)
def test_entries_are_those_of_a_dictionary(
    puts: dict[bytes, bytes],
    prefix: bytes,
    excluded: list[bytes],
    public: bool,
    shared_profile: Profile,
) -> None:
    with shared_profile.transaction() as transaction:
        transaction.delete_space("space")
        for key, value in puts.items():
            transaction.put("space", key, value, secret=not public)
    view = shared_profile.view
    assert view.entries("space") == puts
    assert list(view.scan("space", prefix)) == sorted(
        (k, v) for k, v in puts.items() if k.startswith(prefix)
    )
    assert shared_profile.reader("space").entries(excluded) == {
        k: v for k, v in puts.items() if not k.startswith(tuple(excluded))
    }
    with shared_profile.transaction() as transaction:
        transaction.delete_prefix("space", prefix)
    assert view.entries("space") == {k: v for k, v in puts.items() if not k.startswith(prefix)}


@given(prefix=keys, key=keys)
def test_the_bound_of_a_prefix_is_above_its_keys_and_no_others(prefix: bytes, key: bytes) -> None:
    end = after_prefix(prefix)
    assert key.startswith(prefix) == (key >= prefix and (end is None or key < end))


def test_a_delta_drops_prefixes_then_entries_and_then_puts(profile: Profile) -> None:
    with profile.transaction() as transaction:
        for key in (b"s/1", b"s/2", b"p/1", b"p/2"):
            transaction.put("group", key, b"old")
        delta = Delta(
            puts={b"s/1": b"new", b"p/1": b"new"}, drops=frozenset({b"p/1"}), drop_prefixes=(b"s/",)
        )
        transaction.apply("group", delta)
    assert profile.view.entries("group") == {b"s/1": b"new", b"p/1": b"new", b"p/2": b"old"}


def test_only_the_public_entries_of_a_delta_go_without_keys_of_their_own(profile: Profile) -> None:
    puts = {b"n/1": b"node", b"i/1": b"count", b"g": b"epoch", b"s/1": b"secret"}
    with profile.transaction() as transaction:
        transaction.apply("group", Delta(puts))
    rows = profile._database.run("SELECT key FROM entry WHERE slot IS NULL ORDER BY key")
    assert rows == [(b"i/1",), (b"n/1",)]
    assert profile.view.entries("group") == puts


def test_spaces_do_not_see_each_other(profile: Profile) -> None:
    with profile.transaction() as transaction:
        transaction.put("group/1", b"key", b"one")
        transaction.put("group/2", b"key", b"two")
        transaction.put("other", b"key", b"three")
        transaction.delete_prefix("group/1", b"")
    assert profile.view.get("group/1", b"key") is None
    assert profile.view.get("group/2", b"key") == b"two"
    assert profile.view.spaces("group/") == ["group/2"]


def test_what_is_not_there_is_none_and_deleting_it_is_no_error(profile: Profile) -> None:
    with profile.transaction() as transaction:
        transaction.delete("space", b"key")
        transaction.delete_prefix("space", b"")
        transaction.delete_space("space")
    assert profile.view.get("space", b"key") is None
    assert list(profile.view.scan("space")) == []
    assert profile.view.spaces() == []


def test_a_scan_gives_what_was_there_when_it_was_asked_for(profile: Profile) -> None:
    with profile.transaction() as transaction:
        transaction.put("space", b"key", b"value")
        found = transaction.scan("space")
        transaction.delete("space", b"key")
    assert list(found) == [(b"key", b"value")]


def test_a_deleted_space_leaves_no_name(profile: Profile) -> None:
    with profile.transaction() as transaction:
        transaction.put("group/1", b"key", b"value")
        transaction.delete_space("group/1")
    assert profile._database.run("SELECT name FROM space") == []


def test_intents_come_in_the_order_in_which_they_were_added(profile: Profile) -> None:
    with profile.transaction() as transaction:
        numbers = [transaction.add_intent(b"a", "send", b"%d" % n) for n in range(12)]
        other = transaction.add_intent(b"b", "add", b"x", state="waiting")
        transaction.update_intent(numbers[0], state="sealed", payload=b"changed")
        transaction.remove_intent(numbers[1])
    found = profile.view.intents(b"a")
    assert [intent.number for intent in found] == [numbers[0], *numbers[2:]]
    assert (found[0].state, found[0].payload) == ("sealed", b"changed")
    assert [intent.number for intent in profile.view.intents()] == [numbers[0], *numbers[2:], other]
    assert profile.view.intents(b"b")[0].state == "waiting"


def test_an_intents_number_is_never_used_again(profile: Profile) -> None:
    with profile.transaction() as transaction:
        first = transaction.add_intent(b"a", "send", b"")
        transaction.remove_intent(first)
        assert transaction.add_intent(b"a", "send", b"") > first


def test_an_update_changes_only_what_it_names(profile: Profile) -> None:
    with profile.transaction() as transaction:
        number = transaction.add_intent(b"a", "send", b"payload", state="new")
        assert transaction.update_intent(number, state="sent").payload == b"payload"
        assert transaction.update_intent(number, payload=b"other").state == "sent"


def test_an_intent_that_is_not_there_is_the_callers_mistake(profile: Profile) -> None:
    assert profile.view.intent(1) is None
    with profile.transaction() as transaction:
        with pytest.raises(StateError, match="no intent 1"):
            transaction.update_intent(1, state="sent")
        with pytest.raises(StateError, match="no intent 1"):
            transaction.remove_intent(1)


def test_payloads_and_texts_do_not_print(profile: Profile) -> None:
    with profile.transaction() as transaction:
        number = transaction.add_intent(b"a", "send", b"hush")
    assert "hush" not in repr(profile.view.intent(number))


def test_what_a_step_costs_does_not_grow_with_what_is_stored(profile: Profile) -> None:
    def steps(entries: int) -> int:
        space = f"group of {entries}"
        keys = [b"n/%08d" % (n * 1_000_000 // entries) for n in range(entries)]
        with profile.transaction() as tx:
            tx.apply(space, Delta(dict.fromkeys(keys, b"a node"), frozenset(), ()))
        counted = 0

        def count() -> bool:
            nonlocal counted
            counted += 1
            return False

        connection = profile._database.connection
        connection.set_progress_handler(count, 10)
        try:
            with profile.transaction() as tx:
                changed = dict.fromkeys(keys[:: entries // 20], b"another")
                tx.apply(space, Delta(changed, frozenset(), ()))
        finally:
            connection.set_progress_handler(None)
        return counted

    few, many = steps(100), steps(20_000)
    assert few > 10
    assert many < 2 * few
