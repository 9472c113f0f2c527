"""The history: shown once, in order, searched, erased, exported and imported."""

from __future__ import annotations

import errno
import json
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import apsw
import pytest

from coterie.errors import StateError, StorageError
from coterie.storage import Message, MessageState, Profile, StorageKey
from coterie.storage import history as history_module
from coterie.storage.history import read_history, write_history

TALK = b"conversation"


def message(number: int, text: str = "", **changes: object) -> Message:
    made = Message(
        TALK, b"id%d" % number, "alice", number, number + 1, text=text or f"text {number}"
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def add(profile: Profile, *messages: Message) -> list[bool]:
    with profile.transaction() as transaction:
        return [transaction.add_message(one) for one in messages]


def texts(messages: list[Message]) -> list[str]:
    return [one.text for one in messages]


def test_a_message_comes_back_as_it_was_added(profile: Profile) -> None:
    sent = Message(
        TALK, b"id", "alice", 5, 6, "image", "a text", b"\x00body", MessageState.WAITING, ("b", "a")
    )
    add(profile, sent)
    assert profile.view.message(TALK, b"id") == replace(sent, position=1)
    assert profile.view.message(TALK, b"none") is None


def test_what_arrives_twice_is_kept_once_and_as_it_was(profile: Profile) -> None:
    assert add(profile, message(1, "first"), message(1, "second")) == [True, False]
    assert add(profile, message(1, "third")) == [False]
    assert texts(profile.view.messages(TALK)) == ["first"]
    assert profile.view.search("second") == []


def test_the_same_id_in_another_conversation_is_another_message(profile: Profile) -> None:
    assert add(profile, message(1), message(1, conversation=b"other")) == [True, True]
    assert sorted(profile.view.conversations()) == [TALK, b"other"]


def test_pages_of_messages_join_without_gap_or_repetition(profile: Profile) -> None:
    add(profile, *(message(n) for n in range(10)), message(99, conversation=b"other"))
    page = profile.view.messages(TALK, limit=4)
    assert [m.sent_at for m in page] == [6, 7, 8, 9]
    seen = page
    while page:
        page = profile.view.messages(TALK, before=page[0].position, limit=4)
        seen = page + seen
    assert [m.sent_at for m in seen] == list(range(10))


def test_a_state_is_changed_for_one_message_only(profile: Profile) -> None:
    waiting = [message(n, state=MessageState.WAITING) for n in range(2)]
    add(profile, *waiting)
    with profile.transaction() as transaction:
        assert transaction.update_state(TALK, b"id0", MessageState.SENT)
        assert not transaction.update_state(TALK, b"none", MessageState.SENT)
    states = [m.state for m in profile.view.messages(TALK)]
    assert states == [MessageState.SENT, MessageState.WAITING]


def test_who_has_seen_a_message_is_kept_in_order_and_once(profile: Profile) -> None:
    add(profile, message(1))
    with profile.transaction() as transaction:
        assert transaction.mark_seen(TALK, b"id1", "zoe")
        assert transaction.mark_seen(TALK, b"id1", "bob")
        assert not transaction.mark_seen(TALK, b"id1", "zoe")
        assert not transaction.mark_seen(TALK, b"none", "zoe")
    found = profile.view.message(TALK, b"id1")
    assert found is not None
    assert found.seen_by == ("zoe", "bob")


# -- search


def test_search_finds_all_words_whatever_their_case_and_accents(profile: Profile) -> None:
    add(
        profile, message(1, "Zoë brings the Cake"), message(2, "the cake is gone"), message(3, "no")
    )
    assert texts(profile.view.search("CAKE")) == ["the cake is gone", "Zoë brings the Cake"]
    assert texts(profile.view.search("zoe cake")) == ["Zoë brings the Cake"]
    assert texts(profile.view.search("cak")) == ["the cake is gone", "Zoë brings the Cake"]
    assert profile.view.search("cake gon brings") == []
    assert len(profile.view.search("cake", limit=1)) == 1


def test_search_keeps_to_a_conversation_if_told_so(profile: Profile) -> None:
    add(profile, message(1, "cake"), message(2, "cake", conversation=b"other"))
    assert [m.conversation for m in profile.view.search("cake", conversation=b"other")] == [
        b"other"
    ]


@pytest.mark.parametrize(
    "text", ['"', 'cake" OR text:x', "* NEAR(", "", "  ", "\x00", "(", "AND", "-cake", "'; DROP"]
)
def test_what_a_user_types_is_never_a_query_language(text: str, profile: Profile) -> None:
    add(profile, message(1, "something else"))
    assert profile.view.search(text) == []


# -- erasing


def test_an_erased_message_has_no_content_and_is_not_shown_when_it_comes_again(
    profile: Profile,
) -> None:
    add(profile, message(1, "regretted", body=b"body", seen_by=("bob",)))
    with profile.transaction() as transaction:
        assert transaction.erase_message(TALK, b"id1")
        assert not transaction.erase_message(TALK, b"none")
    assert profile.view.messages(TALK) == []
    assert profile.view.search("regretted") == []
    assert add(profile, message(1, "regretted")) == [False]
    left = profile.view.message(TALK, b"id1")
    assert left is not None
    assert (left.sender, left.text, left.body, left.seen_by) == ("", "", b"", ())


def test_an_erased_message_stays_erased(profile: Profile) -> None:
    add(profile, message(1))
    with profile.transaction() as transaction:
        assert transaction.update_state(TALK, b"id1", MessageState.ERASED)
        assert not transaction.update_state(TALK, b"id1", MessageState.SENT)
        assert not transaction.mark_seen(TALK, b"id1", "bob")
    assert profile.view.messages(TALK) == []


def test_a_deleted_conversation_leaves_nothing_to_find(profile: Profile) -> None:
    add(profile, message(1, "cake", seen_by=("bob",)), message(2, "cake", conversation=b"other"))
    with profile.transaction() as transaction:
        transaction.delete_messages(TALK)
    assert profile.view.messages(TALK) == []
    assert [m.conversation for m in profile.view.search("cake")] == [b"other"]
    assert profile._database.run("SELECT count(*) FROM seen") == [(0,)]


# -- export and import


@pytest.fixture
def other(tmp_path: Path) -> Profile:
    return Profile.open(tmp_path / "other", StorageKey.given(bytes(32)), create=True, durable=False)


def exported(profile: Profile, tmp_path: Path) -> Path:
    path = tmp_path / "history"
    profile.view.export_history(path, "it's a passphrase")
    return path


def test_an_imported_history_is_the_exported_one_and_stands_before_what_is_there(
    profile: Profile, other: Profile, tmp_path: Path
) -> None:
    add(profile, *(message(n, seen_by=("bob",)) for n in range(5)))
    with closing(other):
        add(other, message(3, "known already"), message(9))
        with other.transaction() as transaction:
            assert transaction.import_history(exported(profile, tmp_path), "it's a passphrase") == 4
        found = other.view.messages(TALK)
        assert [m.sent_at for m in found] == [0, 1, 2, 4, 3, 9]
        assert found[0] == message(0, seen_by=("bob",), position=found[0].position)
        assert texts(other.view.search("known")) == ["known already"]
        assert [m.sent_at for m in other.view.search("2")] == [2]
        with other.transaction() as transaction:
            assert transaction.import_history(tmp_path / "history", "it's a passphrase") == 0


def test_only_one_conversation_is_exported_if_told_so_and_nothing_that_was_erased(
    profile: Profile, tmp_path: Path
) -> None:
    add(profile, message(1), message(2), message(3, conversation=b"other"))
    with profile.transaction() as transaction:
        transaction.erase_message(TALK, b"id1")
        count = transaction.export_history(tmp_path / "history", "pass", conversation=TALK)
    assert count == 1


def test_an_export_longer_than_a_batch_is_whole(profile: Profile, tmp_path: Path) -> None:
    add(profile, *(message(n) for n in range(2001)))
    assert profile.view.export_history(tmp_path / "history", "pass") == 2001


def test_what_still_waited_when_it_was_exported_is_imported_as_failed(
    profile: Profile, other: Profile, tmp_path: Path
) -> None:
    add(profile, message(1, state=MessageState.WAITING))
    with closing(other):
        with other.transaction() as transaction:
            transaction.import_history(exported(profile, tmp_path), "it's a passphrase")
        assert other.view.messages(TALK)[0].state is MessageState.FAILED


def test_an_exported_file_is_not_readable_without_its_passphrase(
    profile: Profile, tmp_path: Path
) -> None:
    add(profile, message(1, "what was said"))
    path = exported(profile, tmp_path)
    assert b"what was said" not in path.read_bytes()
    with profile.transaction() as transaction, pytest.raises(StorageError, match="passphrase"):
        transaction.import_history(path, "it's another")


def test_the_cost_of_the_passphrase_is_what_the_documentation_says(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported(profile, tmp_path)
    monkeypatch.setattr(history_module, "_CIPHER", ("cipher='aegis'",))
    with profile.transaction() as transaction, pytest.raises(StorageError, match="passphrase"):
        transaction.import_history(path, "it's a passphrase")


def test_an_export_does_not_overwrite_and_needs_a_passphrase(
    profile: Profile, tmp_path: Path
) -> None:
    with pytest.raises(StateError, match="there already"):
        profile.view.export_history(exported(profile, tmp_path), "pass")
    with pytest.raises(StorageError, match="empty"):
        profile.view.export_history(tmp_path / "more", "")
    assert not (tmp_path / "more").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("links", [True, False])
def test_an_export_overwrites_nothing_that_is_made_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    path = tmp_path / "history"

    def slowly() -> Iterator[Message]:
        yield message(1)
        path.write_text("somebody else's")

    if not links:
        monkeypatch.setattr("os.link", _no_links)
    with pytest.raises(StateError, match="there already"):
        write_history(path, "pass", slowly())
    assert path.read_text() == "somebody else's"
    assert not list(tmp_path.glob(".*"))


def _no_links(*_: object) -> NoReturn:
    raise PermissionError(errno.EPERM, "no links on this file system")


def test_an_export_to_a_disk_without_links_is_whole(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(profile, *(message(n) for n in range(3)))
    monkeypatch.setattr("os.link", _no_links)
    path = exported(profile, tmp_path)
    assert len(list(read_history(path, "it's a passphrase"))) == 3
    assert [found.name for found in tmp_path.glob("*history*")] == ["history"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_export_to_a_place_that_is_not_there_is_reported(
    profile: Profile, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for place, why in (
        ("none/history", "No such file"),
        ("file/history", "Not a directory"),
        ("x" * 255, "name too long"),
    ):
        with pytest.raises(StorageError, match=f"cannot be written to .*: .*{why}"):
            profile.view.export_history(tmp_path / place, "pass")


def test_a_passphrase_that_is_no_text_is_reported(profile: Profile, tmp_path: Path) -> None:
    path = exported(profile, tmp_path)
    with pytest.raises(StorageError, match="no text in UTF-8"):
        profile.view.export_history(tmp_path / "other", "\udcff")
    with profile.transaction() as tx, pytest.raises(StorageError, match="no text in UTF-8"):
        tx.import_history(path, "\udcff")
    assert [found.name for found in tmp_path.glob("*other*")] == []


def test_an_import_of_no_file_or_another_file_is_reported(profile: Profile, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"no history " * 1000)
    with profile.transaction() as transaction:
        with pytest.raises(StorageError, match="there is no file"):
            transaction.import_history(tmp_path / "none", "pass")
        with pytest.raises(StorageError, match="passphrase does not open"):
            transaction.import_history(tmp_path / "text", "pass")


def forge(path: Path, *statements: str) -> None:
    with closing(
        history_module._connect(path, "it's a passphrase", apsw.SQLITE_OPEN_READWRITE)
    ) as file:
        for statement in statements:
            file.execute(statement).fetchall()


ROW = "INSERT INTO message VALUES (2, x'01', x'02', 'eve', 1, 1, 'text', 'hi', x'', "


UNTYPED = """
ALTER TABLE message RENAME TO typed; CREATE TABLE message AS SELECT * FROM typed;
UPDATE message SET text = x'07'
"""


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("PRAGMA user_version=2", "newer version"),
        ("PRAGMA application_id=1", "not an exported history"),
        (ROW + "99, '[]')", "damaged"),
        (ROW + "0, 'no list')", "damaged"),
        (ROW + "0, '7')", "damaged"),
        (ROW + f"0, '{'[' * 100_000}')", "damaged"),
        ("DROP TABLE message", "damaged"),
        ("ALTER TABLE message DROP COLUMN body", "damaged"),
        ("ALTER TABLE message ADD COLUMN more TEXT", "damaged"),
        (UNTYPED, "damaged"),
    ],
)
def test_a_forged_file_is_refused_and_nothing_of_it_is_kept(
    statement: str, expected: str, profile: Profile, tmp_path: Path
) -> None:
    add(profile, message(1))
    path = exported(profile, tmp_path)
    forge(path, *statement.split(";"))
    with pytest.raises(StorageError, match=expected), profile.transaction() as transaction:
        transaction.import_history(path, "it's a passphrase")
    assert texts(profile.view.messages(TALK)) == ["text 1"]


def test_the_format_of_the_file_is_the_documented_one(profile: Profile, tmp_path: Path) -> None:
    add(profile, message(1, seen_by=("bob",)))
    with closing(
        history_module._connect(
            exported(profile, tmp_path), "it's a passphrase", apsw.SQLITE_OPEN_READONLY
        )
    ) as file:
        [row] = file.execute("SELECT * FROM message").fetchall()
    assert row[:-1] == (1, TALK, b"id1", "alice", 1, 2, "text", "text 1", b"", 0)
    assert json.loads(str(row[-1])) == ["bob"]
