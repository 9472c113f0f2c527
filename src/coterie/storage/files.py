"""Small files, written whole or not at all, that only their owner can read."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from pathlib import Path


def replace_file(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Writes a file durably with mode 0600; raises `OSError`.

    Without `overwrite` a file that is there, or that another process makes at the same time, stays.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                give_name(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    sync_directory(path.parent)


def give_name(temporary: Path, path: Path) -> None:
    """Gives a file that is written its name; raises `FileExistsError` where there is a file by that name.

    That one stays, however late it was made. The temporary name may stay as well; other failures are `OSError`.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # No links here (many sticks): the name is taken first, and nothing but that is replaced.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        temporary.replace(path)


def sync_directory(directory: Path) -> None:
    """Makes the names in a directory durable, where the system needs that and can do it."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
