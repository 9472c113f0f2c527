"""Opening, locking, copying and wiping a profile, and what makes a transaction one."""

from __future__ import annotations

import contextlib
import stat
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import apsw
import pytest

from coterie.errors import StateError, StorageError
from coterie.mls.secret import Secret
from coterie.storage import KeyCost, Message, Profile, StorageKey, database
from coterie.storage import profile as module
from coterie.storage.database import Schema
from coterie.storage.profile import DATABASE, KEY_FILE
from coterie.storage.schema import SCHEMA
from tests.storage_disk import Operation, Write, disk

ROOT = Path(__file__).resolve().parents[3]


def put(profile: Profile, value: bytes) -> None:
    with profile.transaction() as transaction:
        transaction.put("space", b"key", value)


def fail_after(profile: Profile, value: bytes) -> None:
    with contextlib.suppress(ZeroDivisionError), profile.transaction() as transaction:
        transaction.put("space", b"key", value)
        transaction.add_intent(b"c", "send", b"payload")
        transaction.add_message(Message(b"c", b"1", "alice", 1, 1, text="word"))
        raise ZeroDivisionError


# -- opening


def test_what_was_stored_is_there_after_opening_again(key: StorageKey, tmp_path: Path) -> None:
    with Profile.open(tmp_path / "a" / "p", key, create=True) as profile:
        put(profile, b"value")
    with Profile.open(tmp_path / "a" / "p", key) as profile:
        assert profile.view.get("space", b"key") == b"value"


def test_a_path_without_a_profile_is_refused_and_nothing_is_made(
    key: StorageKey, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="there is no profile"):
        Profile.open(tmp_path / "none", key)
    assert list(tmp_path.iterdir()) == []


def test_create_opens_a_profile_that_exists(
    profile: Profile, key: StorageKey, tmp_path: Path
) -> None:
    put(profile, b"value")
    profile.close()
    with Profile.open(tmp_path / "p", key, create=True) as again:
        assert again.view.get("space", b"key") == b"value"


def test_a_directory_that_cannot_be_made_is_reported(key: StorageKey, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be made"):
        Profile.open(tmp_path / "file" / "p", key, create=True)


def test_a_path_that_no_file_can_have_is_reported(key: StorageKey, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        Profile.open(tmp_path / ("x" * 300), key)


def test_only_the_owner_can_read_the_files(profile: Profile, tmp_path: Path) -> None:
    put(profile, b"value")
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == 0o700
    for path in (tmp_path / "p").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_wrong_key_is_refused(profile: Profile, tmp_path: Path) -> None:
    profile.close()
    with pytest.raises(StorageError, match="does not open"):
        Profile.open(tmp_path / "p", StorageKey.given(bytes(32)))


def test_a_key_file_of_another_profile_is_reported(
    profile: Profile, key: StorageKey, tmp_path: Path
) -> None:
    profile.close()
    with Profile.open(tmp_path / "other", key, create=True):
        pass
    (tmp_path / "other" / KEY_FILE).replace(tmp_path / "p" / KEY_FILE)
    with pytest.raises(StorageError, match="damaged, or belongs to another key file"):
        Profile.open(tmp_path / "p", key)


@pytest.mark.parametrize("create", [True, False])
def test_a_lost_key_file_is_reported_and_no_new_one_is_made(
    create: bool, profile: Profile, key: StorageKey, tmp_path: Path
) -> None:
    profile.close()
    (tmp_path / "p" / KEY_FILE).unlink()
    with pytest.raises(StorageError, match="restore both"):
        Profile.open(tmp_path / "p", key, create=create)
    assert not (tmp_path / "p" / KEY_FILE).exists()


@pytest.mark.parametrize("emptied", [True, False])
def test_a_lost_database_is_reported_and_not_taken_for_a_new_profile(
    emptied: bool, profile: Profile, key: StorageKey, tmp_path: Path
) -> None:
    profile.close()
    (tmp_path / "p" / DATABASE).unlink()
    if emptied:
        (tmp_path / "p" / DATABASE).touch()
    with pytest.raises(StorageError, match="missing or empty"):
        Profile.open(tmp_path / "p", key)


def test_a_creation_that_was_interrupted_is_finished_by_the_next(
    key: StorageKey, tmp_path: Path
) -> None:
    path = tmp_path / "p"
    path.mkdir()
    (path / KEY_FILE).write_bytes(key.wrap(Secret(bytes(32))))
    with Profile.open(path, key, create=True) as profile:
        put(profile, b"value")


@pytest.mark.parametrize("content", [b"x" * 5000, b"x" * 10])
def test_a_damaged_database_is_reported(
    content: bytes, profile: Profile, key: StorageKey, tmp_path: Path
) -> None:
    profile.close()
    (tmp_path / "p" / DATABASE).write_bytes(content)
    with pytest.raises(StorageError, match="restore a backup"):
        Profile.open(tmp_path / "p", key)


def test_an_error_never_shows_the_key(key: StorageKey, tmp_path: Path) -> None:
    with Profile.open(tmp_path / "p", key, create=True) as profile:
        shown = profile._key.hex()
    (tmp_path / "p" / DATABASE).write_bytes(b"x" * 5000)
    with pytest.raises(StorageError) as caught:
        Profile.open(tmp_path / "p", key)
    error: BaseException | None = caught.value
    while error is not None:
        assert shown not in str(error)
        error = error.__cause__ or error.__context__


def test_a_closed_profile_says_so(profile: Profile) -> None:
    profile.close()
    profile.close()
    with pytest.raises(StateError, match="closed"):
        profile.view.get("space", b"key")


# -- versions


def open_with(
    schema: Schema, key: StorageKey, path: Path, monkeypatch: pytest.MonkeyPatch
) -> Profile:
    monkeypatch.setattr(module, "SCHEMA", schema)
    return Profile.open(path, key, create=True, durable=False)


def test_an_older_profile_is_brought_to_the_present_format(
    key: StorageKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_with(SCHEMA, key, tmp_path / "p", monkeypatch) as profile:
        put(profile, b"value")
    newer = Schema(
        SCHEMA.application_id,
        (*SCHEMA.versions, "ALTER TABLE profile ADD COLUMN more INTEGER NOT NULL DEFAULT 7"),
    )
    with open_with(newer, key, tmp_path / "p", monkeypatch) as profile:
        assert profile._fact("more") == 7
        assert profile.view.get("space", b"key") == b"value"


def test_a_migration_that_fails_leaves_the_older_format(
    key: StorageKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_with(SCHEMA, key, tmp_path / "p", monkeypatch).close()
    broken = Schema(
        SCHEMA.application_id,
        (*SCHEMA.versions, "CREATE TABLE more (a); CREATE TABLE profile (a)"),
    )
    with pytest.raises(StorageError):
        open_with(broken, key, tmp_path / "p", monkeypatch)
    with open_with(SCHEMA, key, tmp_path / "p", monkeypatch) as profile:
        assert profile.view._database.run("SELECT 1 FROM sqlite_schema WHERE name = 'more'") == []


def test_a_newer_format_is_refused(profile: Profile, key: StorageKey, tmp_path: Path) -> None:
    profile._database.run("PRAGMA user_version=99")
    profile.close()
    with pytest.raises(StorageError, match=r"newer version .* update the program"):
        Profile.open(tmp_path / "p", key)


def test_another_programs_database_is_refused(
    profile: Profile, key: StorageKey, tmp_path: Path
) -> None:
    profile._database.run("PRAGMA application_id=1")
    profile.close()
    with pytest.raises(StorageError, match="another program"):
        Profile.open(tmp_path / "p", key)


# -- one process


def test_a_second_profile_in_the_same_process_is_refused(
    profile: Profile, key: StorageKey, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="in use"):
        Profile.open(tmp_path / "p", key)
    put(profile, b"value")


HOLDER = """
import sys
from coterie.storage import Profile, StorageKey
profile = Profile.open(sys.argv[1], StorageKey.given(bytes(range(32))), create=True)
sys.stdout.write("open\\n")
sys.stdout.flush()
sys.stdin.read()
"""


def test_a_profile_that_another_process_has_open_is_refused_until_that_process_is_gone(
    key: StorageKey, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "p")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(StorageError, match="in use by another process"):
            Profile.open(tmp_path / "p", key)
        process.kill()
    Profile.open(tmp_path / "p", key).close()


# -- transactions


def test_a_block_that_raises_leaves_nothing_behind(profile: Profile) -> None:
    put(profile, b"before")
    fail_after(profile, b"after")
    assert profile.view.get("space", b"key") == b"before"
    assert profile.view.intents() == []
    assert profile.view.search("word") == []
    assert profile.step == 1


def test_a_transaction_inside_another_is_refused_and_the_outer_one_goes_on(
    profile: Profile,
) -> None:
    with profile.transaction() as transaction:
        transaction.put("space", b"key", b"value")
        with pytest.raises(StateError, match="open already"), profile.transaction():
            pass
        transaction.put("space", b"more", b"value")
    assert profile.view.get("space", b"more") == b"value"


def test_a_transaction_that_is_over_changes_nothing(profile: Profile) -> None:
    with profile.transaction() as transaction:
        pass
    with pytest.raises(StateError, match="over"):
        transaction.put("space", b"key", b"value")
    with pytest.raises(StateError, match="over"):
        transaction.delete("space", b"key")


def test_closing_the_profile_drops_an_open_transaction(
    profile: Profile, key: StorageKey, tmp_path: Path
) -> None:
    def close_within() -> None:
        with profile.transaction() as transaction:
            transaction.put("space", b"key", b"value")
            profile.close()

    with pytest.raises(StateError):
        close_within()
    with Profile.open(tmp_path / "p", key) as again:
        assert again.view.get("space", b"key") is None


def test_a_step_is_counted_for_each_transaction_that_changed_something(profile: Profile) -> None:
    assert profile.step == 0
    with profile.transaction() as transaction:
        assert transaction.step == 1
        transaction.put("space", b"key", b"value")
    with profile.transaction() as transaction:
        assert transaction.step == 2
        transaction.get("space", b"key")
    assert profile.step == 1


def test_a_transaction_reads_what_it_has_written_and_so_does_a_reader(profile: Profile) -> None:
    reader = profile.reader("space")
    with profile.transaction() as transaction:
        transaction.put("space", b"key", b"value")
        assert transaction.get("space", b"key") == b"value"
        assert reader.get(b"key") == b"value"


# -- copies


def test_a_backup_says_that_it_is_one_until_that_is_settled(
    profile: Profile, key: StorageKey, tmp_path: Path
) -> None:
    put(profile, b"value")
    profile.backup(tmp_path / "copy")
    assert not profile.restored
    with Profile.open(tmp_path / "copy", key) as copy:
        assert copy.restored
        assert copy.instance != profile.instance
        assert copy.step == profile.step
        assert copy.view.get("space", b"key") == b"value"
        with copy.transaction() as transaction:
            transaction.settle_restored()
    with Profile.open(tmp_path / "copy", key) as copy:
        assert not copy.restored


def test_a_backup_has_the_files_of_a_profile_and_no_others(
    profile: Profile, tmp_path: Path
) -> None:
    profile.backup(tmp_path / "copy")
    assert {path.name for path in tmp_path.iterdir()} == {"p", "copy"}
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert names - {f"{DATABASE}-journal"} == {DATABASE, KEY_FILE}


def test_a_backup_that_was_cut_off_does_not_hold_up_the_next_one(
    profile: Profile, tmp_path: Path
) -> None:
    left = tmp_path / ".copy.partial"
    left.mkdir()
    (left / DATABASE).write_bytes(b"half")
    profile.backup(tmp_path / "copy")
    assert {path.name for path in tmp_path.iterdir()} == {"p", "copy"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
def test_a_backup_to_a_disk_that_fails_is_not_the_profiles_disk(
    profile: Profile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[apsw.Error],
) -> None:
    def fail(operation: Operation) -> None:
        if isinstance(operation, Write):
            raise error

    def connect(path: Path, key: Secret, *, durable: bool, vfs: str | None) -> apsw.Connection:
        assert vfs is None
        return to_the_profile(path, key, durable=durable, vfs="stick")

    put(profile, b"value")
    to_the_profile, stick = database.connect, disk("stick")
    monkeypatch.setattr(database, "connect", connect)
    monkeypatch.setattr(stick, "fail", fail)
    with pytest.raises(StorageError, match=r"copy\.partial"):
        profile.backup(tmp_path / "copy")
    assert {path.name for path in tmp_path.iterdir()} == {"p"}
    put(profile, b"another")
    assert profile.view.get("space", b"key") == b"another"


def test_a_backup_does_not_overwrite(profile: Profile, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there already"):
        profile.backup(tmp_path / "p")


@pytest.mark.parametrize("what", ["backup", "compact"])
def test_the_whole_profile_is_not_touched_inside_a_transaction(
    what: str, profile: Profile, tmp_path: Path
) -> None:
    arguments = [tmp_path / "copy"] if what == "backup" else []
    with profile.transaction(), pytest.raises(StateError, match="transaction is open"):
        getattr(profile, what)(*arguments)


def test_compacting_keeps_everything_and_makes_the_file_smaller(
    profile: Profile, tmp_path: Path
) -> None:
    with profile.transaction() as transaction:
        for number in range(300):
            transaction.put("space", b"%d" % number, bytes(1000))
        transaction.put("other", b"key", b"value")
    with profile.transaction() as transaction:
        transaction.delete_space("space")
    before = (tmp_path / "p" / DATABASE).stat().st_size
    profile.compact()
    assert (tmp_path / "p" / DATABASE).stat().st_size < before / 4
    assert profile.view.get("other", b"key") == b"value"


# -- keys


def test_after_a_change_of_key_the_new_one_opens_and_the_old_one_does_not(
    profile: Profile, key: StorageKey, tmp_path: Path
) -> None:
    put(profile, b"value")
    new = StorageKey.from_passphrase("new", cost=KeyCost(1, 64, 1))
    profile.change_key(new)
    put(profile, b"later")
    profile.close()
    with pytest.raises(StorageError, match="passphrase"):
        Profile.open(tmp_path / "p", key)
    with Profile.open(tmp_path / "p", new) as again:
        assert again.view.get("space", b"key") == b"later"


def test_a_wiped_profile_is_gone(profile: Profile, key: StorageKey, tmp_path: Path) -> None:
    put(profile, b"value")
    profile.wipe()
    assert not (tmp_path / "p").exists()
    with pytest.raises(StorageError, match="there is no profile"):
        Profile.open(tmp_path / "p", key)


def test_wiping_takes_what_an_interrupted_change_of_key_left(
    profile: Profile, tmp_path: Path
) -> None:
    (tmp_path / "p" / f".{KEY_FILE}.1234").touch()
    profile.wipe()
    assert not (tmp_path / "p").exists()


def test_a_change_of_key_that_cannot_be_written_leaves_the_old_one(
    profile: Profile, key: StorageKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes, *, overwrite: bool) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "replace_file", full)
    with pytest.raises(StorageError, match="No space left on device; the old key still holds"):
        profile.change_key(StorageKey.given(bytes(32)))
    profile.close()
    Profile.open(tmp_path / "p", key).close()


def test_a_profile_can_lie_on_a_disk_without_links(
    key: StorageKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> NoReturn:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    for _ in range(2):
        Profile.open(tmp_path / "stick", key, create=True).close()
    assert [path.name for path in (tmp_path / "stick").glob("*.key*")] == [KEY_FILE]


def test_wiping_spares_files_that_are_not_ours(profile: Profile, tmp_path: Path) -> None:
    (tmp_path / "p" / "notes").touch()
    profile.wipe()
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["notes"]
