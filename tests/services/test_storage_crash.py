"""Storage loses nothing that it has confirmed, and keeps no half of a step, wherever a crash falls.

A scripted history runs once over a disk that records every write, truncation and sync. Then the power is cut, on paper,
after each of them: the files are made as the disk would have them, with what was not synced forgotten, kept or in
parts, and the profile is opened and compared as a whole. Real processes are killed as well.
COTERIE_CRASH=full (`make crash`) runs longer histories and thirty kills.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from coterie.errors import StorageError
from coterie.storage import Profile, StorageKey
from coterie.storage.profile import DATABASE, KEY_FILE
from tests.storage_disk import Delete, Disk, Mark, Operation, Sync, Truncate, Write, crashed, disk
from tests.storage_script import KEY, Model, at, play, seen_in

FULL = os.environ.get("COTERIE_CRASH") == "full"
STEPS = 40 if FULL else 12
KILLS = 30 if FULL else 10
SEED = 7

# The share of what was not synced that the disk keeps all the same.
FATES = {"forgotten": 0.0, "kept": 1.0, "some kept": 0.5}


def models(steps: int) -> list[Model]:
    return [at(count, SEED) for count in range(steps + 1)]


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[bytes, list[Operation]]:
    """The key file of a profile, and what a history did to its disk."""
    operations = disk("recording").operations
    operations.clear()
    with Profile.open(
        tmp_path / "p", StorageKey.given(KEY), create=True, vfs="recording"
    ) as profile:
        operations.append(Mark(0))
        model = Model()
        for _ in range(STEPS):
            play(profile, model, SEED)
            operations.append(Mark(model.steps))
        operations = list(operations)
    return (tmp_path / "p" / KEY_FILE).read_bytes(), operations


def lay_out(directory: Path, key_file: bytes, files: dict[str, bytes]) -> None:
    """Makes a profile's directory of these files, in place of an earlier one."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / KEY_FILE).write_bytes(key_file)
    for name, content in files.items():
        (directory / name).write_bytes(content)


def reopened(directory: Path, vfs: str | None = None) -> Model:
    with Profile.open(
        directory, StorageKey.given(KEY), create=True, durable=vfs is not None, vfs=vfs
    ) as profile:
        return seen_in(profile)


def check(found: Model, confirmed: int, expected: list[Model]) -> None:
    """What was confirmed is there; the step after it may be, whole."""
    assert found.steps in {confirmed, confirmed + 1}
    assert found == expected[found.steps]


def confirmed_by(operations: list[Operation]) -> int:
    return max((op.step for op in operations if isinstance(op, Mark)), default=0)


@pytest.mark.parametrize("fate", FATES)
def test_a_power_cut_after_any_operation_leaves_whole_steps_and_all_confirmed_ones(
    fate: str, recorded: tuple[bytes, list[Operation]], tmp_path: Path
) -> None:
    key_file, operations = recorded
    expected = models(STEPS + 1)
    rng = random.Random(SEED)
    for cut in range(len(operations) + 1):
        before = operations[:cut]
        files = crashed(before, FATES[fate], rng)
        lay_out(tmp_path / "cut", key_file, files)
        check(reopened(tmp_path / "cut"), confirmed_by(before), expected)


def test_a_power_cut_during_recovery_changes_nothing(
    recorded: tuple[bytes, list[Operation]], tmp_path: Path
) -> None:
    key_file, operations = recorded
    expected = models(STEPS + 1)
    rng = random.Random(SEED)
    hot = [cut for cut in range(len(operations)) if isinstance(operations[cut], Sync)]
    recoveries = 0
    for cut in rng.sample(hot, 6):
        files = crashed(operations[:cut], 0.5, rng)
        lay_out(tmp_path / "first", key_file, files)
        disk("recording").operations.clear()
        reopened(tmp_path / "first", vfs="recording")
        recovery = list(disk("recording").operations)
        recoveries += len(recovery)
        whole = [op for name, data in files.items() for op in (Write(name, 0, data), Sync(name))]
        for again in range(len(recovery)):
            left = crashed([*whole, *recovery[:again]], 0.5, rng)
            lay_out(tmp_path / "cut", key_file, left)
            check(reopened(tmp_path / "cut"), confirmed_by(operations[:cut]), expected)
    assert recoveries > 0


def test_the_recorded_history_has_every_kind_of_operation(
    recorded: tuple[bytes, list[Operation]],
) -> None:
    _, operations = recorded
    synced = [op.name for op in operations if isinstance(op, Sync)]
    assert synced.count(DATABASE) >= STEPS
    assert synced.count(f"{DATABASE}-journal") >= 2 * STEPS
    assert sum(isinstance(op, Truncate) for op in operations) >= STEPS
    assert not any(isinstance(op, Delete) for op in operations)


def test_a_disk_that_forgets_a_sync_is_noticed(
    recorded: tuple[bytes, list[Operation]], tmp_path: Path
) -> None:
    """The check above can fail: without the database's syncs, confirmed steps are missing."""
    key_file, operations = recorded
    careless = [op for op in operations if op != Sync(DATABASE)]
    files = crashed(careless, 0.0, random.Random(SEED))
    lay_out(tmp_path / "careless", key_file, files)
    with pytest.raises((AssertionError, StorageError)):
        check(reopened(tmp_path / "careless"), STEPS, models(STEPS + 1))


def fail_after(disk: Disk, after: int, error: type[apsw.Error]) -> None:
    left = [after]

    def fail(operation: Operation) -> None:
        if not isinstance(operation, Write):
            return
        left[0] -= 1
        if left[0] < 0:
            raise error

    disk.fail = fail


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
def test_a_disk_that_fails_at_any_write_leaves_the_step_out_whole(
    error: type[apsw.Error], tmp_path: Path
) -> None:
    expected = models(STEPS)
    key = StorageKey.given(KEY)
    failing = disk("failing")
    profile = Profile.open(tmp_path / "p", key, create=True, vfs="failing", durable=False)
    failures = 0
    for number in range(1, STEPS + 1):
        for after in range(0, 1000, 3):
            fail_after(failing, after, error)
            refused = refusal(profile, at(number - 1, SEED))
            failing.fail = None
            if refused is None:
                break
            failures += 1
            assert "disk" in refused
            if error is apsw.IOError:
                with pytest.raises(StorageError, match="open it again"):
                    profile.view.spaces()
                profile.close()
                profile = Profile.open(tmp_path / "p", key, vfs="failing", durable=False)
            assert seen_in(profile) == expected[number - 1]
        assert seen_in(profile) == expected[number]
    profile.close()
    assert failures > STEPS


def refusal(profile: Profile, model: Model) -> str | None:
    """What storage said when it refused the next step; None if it stored it."""
    try:
        play(profile, model, SEED)
    except StorageError as error:
        return str(error)
    return None


def test_killed_processes_lose_nothing_that_they_confirmed(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    confirmed = 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.storage_script", str(tmp_path / "p"), str(SEED)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2],
        )
        assert process.stdout is not None
        for _ in range(rng.randint(1, 40)):
            confirmed = int(process.stdout.readline())
        process.kill()
        # What was written before the signal came counts as confirmed, too.
        rest = process.stdout.read().split(b"\n")[:-1]
        process.stdout.close()
        process.wait()
        confirmed = int(rest[-1]) if rest else confirmed
        found = reopened(tmp_path / "p")
        assert found.steps in {confirmed, confirmed + 1}
        assert found == at(found.steps, SEED)
        confirmed = found.steps
    assert confirmed > KILLS
