"""`coterie.mls.secret`: what must not leak by accident does not."""

from __future__ import annotations

import copy
import hmac
import logging
import pickle
from collections.abc import Callable

import pytest

from coterie.mls.secret import Secret

BYTES = b"correct horse battery staple"
SECRET = Secret(BYTES)


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        "{0!r:>40}".format,
        "{:>40}".format,
        lambda secret: f"{secret}",
        lambda secret: "%s" % secret,  # noqa: UP031 - the old form is what is tested
        lambda secret: repr([secret]),
        lambda secret: str(ValueError(secret)),
        lambda secret: logging.LogRecord("x", 0, "x", 0, "%s", (secret,), None).getMessage(),
    ],
)
def test_showing_a_secret_shows_its_length_only(show: Callable[[Secret], str]) -> None:
    shown = show(SECRET)
    assert "Secret(28 bytes)" in shown
    assert "horse" not in shown


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_cannot_be_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="Secret holds a secret"):
        pickle.dumps(SECRET, protocol)
    with pytest.raises(TypeError, match="Secret holds a secret"):
        pickle.dumps({"kept": [SECRET]}, protocol)


def test_copying_a_secret_makes_no_second_copy() -> None:
    assert copy.copy(SECRET) is SECRET
    assert copy.deepcopy([SECRET])[0] is SECRET


@pytest.mark.parametrize("other", [BYTES, bytearray(BYTES), memoryview(BYTES), Secret(BYTES)])
def test_a_secret_equals_the_same_bytes_from_either_side(other: object) -> None:
    secret = SECRET
    assert secret == other
    assert other == secret
    assert not secret != other  # noqa: SIM202 - `!=` is a method of its own


@pytest.mark.parametrize(
    "other", [BYTES[:-1], BYTES + b"\0", b"", BYTES[:-1] + b"E", Secret(b""), "text", None, 28]
)
def test_a_secret_differs_from_everything_else(other: object) -> None:
    secret = SECRET
    assert secret != other
    assert other != secret
    assert not secret == other  # noqa: SIM201 - `==` is a method of its own


def test_a_secret_hashes_as_its_bytes() -> None:
    assert {SECRET: 1}[BYTES] == 1  # type: ignore[index]
    assert hash(SECRET) == hash(BYTES)


@pytest.mark.parametrize("compare", [lambda a, b: a == b, lambda a, b: a != b])
def test_secrets_are_compared_in_constant_time(
    compare: Callable[[object, object], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[object, object]] = []

    def compare_digest(a: object, b: object) -> bool:
        compared.append((a, b))
        return True

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    compare(SECRET, BYTES)
    compare(BYTES, SECRET)
    assert len(compared) == 2


def test_a_secret_has_no_room_for_attributes() -> None:
    with pytest.raises(AttributeError):
        SECRET.note = "why"  # type: ignore[attr-defined]
