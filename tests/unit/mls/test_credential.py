"""How many credentials are asked about at once: by whom, in which order, and which refusal is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

import pytest

from coterie.client.cores import on_all_cores
from coterie.errors import VerificationError
from coterie.mls.credential import AcceptAnything, Credential, authenticate_all
from coterie.mls.rules import Rule

MANY = [(Credential.basic(b"%d" % number), b"key of %d" % number) for number in range(300)]


class Choosy(AcceptAnything):
    """Refuses some, and notes who was asked about and in which thread."""

    def __init__(self, refused: Iterable[int] = (), rule: str | None = None) -> None:
        self.refused = {b"%d" % number for number in refused}
        self.rule = rule
        self.asked: list[bytes] = []
        self.threads: set[int] = set()

    def authenticate(
        self, credential: Credential, signature_key: bytes, *, now: int | None
    ) -> None:
        self.threads.add(threading.get_ident())
        self.asked.append(credential.identity)
        assert signature_key == b"key of " + credential.identity
        assert now == 7
        if credential.identity in self.refused:
            raise VerificationError(f"not {credential.identity.decode()}", rule=self.rule)


class Patient(Choosy):
    """One that several threads may ask."""

    thread_safe = True


def two_threads(function: Callable[[object], object], items: Iterable[object]) -> Iterator[object]:
    return on_all_cores(function, items, threads=2)


def test_all_are_asked_about_once_in_order() -> None:
    choosy = Choosy()
    authenticate_all(choosy, MANY, now=7)
    assert choosy.asked == [credential.identity for credential, _ in MANY]


def test_the_first_refusal_is_told_and_nobody_after_it_is_asked_about() -> None:
    choosy = Choosy({70, 200})
    with pytest.raises(VerificationError, match="not 70") as caught:
        authenticate_all(choosy, MANY, now=7)
    assert caught.value.rule == Rule.CREDENTIAL
    assert len(choosy.asked) == 71


def test_only_who_is_thread_safe_is_asked_by_other_threads() -> None:
    choosy, patient = Choosy(), Patient()
    for authenticator in (choosy, patient):
        authenticate_all(authenticator, MANY, now=7, run=two_threads)
        assert sorted(authenticator.asked) == sorted(c.identity for c, _ in MANY)
    assert choosy.threads == {threading.get_ident()}
    assert patient.threads
    assert threading.get_ident() not in patient.threads


def test_the_first_refusal_is_the_same_on_several_cores() -> None:
    with pytest.raises(VerificationError, match="not 70") as caught:
        authenticate_all(Patient({70, 71, 200, 299}, "their rule"), MANY, now=7, run=two_threads)
    assert caught.value.rule == "their rule"
    with pytest.raises(VerificationError, match="not 299"):
        authenticate_all(Patient({299}), MANY, now=7, run=two_threads)


def test_what_an_authenticator_raises_by_mistake_comes_out_of_its_thread() -> None:
    class Broken(Patient):
        def authenticate(
            self, credential: Credential, signature_key: bytes, *, now: int | None
        ) -> None:
            raise LookupError(credential.identity)

    with pytest.raises(LookupError):
        authenticate_all(Broken(), MANY, now=7, run=two_threads)
