"""The configuration file: every mistake is named, and nothing is served by accident."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from coterie.apps.config import (
    Config,
    RootKey,
    Tls,
    Trust,
    default_path,
    from_table,
    is_loopback,
    load,
)
from coterie.authentication.settings import Settings
from coterie.delivery.settings import Settings as DeliverySettings
from coterie.errors import CoterieError, DecodeError, StateError

EXAMPLE = Path(__file__).parents[3] / "deploy" / "coterie.toml"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "coterie.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_commented_file_has_the_defaults() -> None:
    loaded, default = load(EXAMPLE), Config()
    assert loaded.authentication == default.authentication == Settings()
    assert loaded.services == default.services
    assert (loaded.realm, loaded.listen, loaded.data) == (
        default.realm,
        default.listen,
        default.data,
    )
    delivery = from_table(DeliverySettings, loaded.delivery, where="", base=Path())
    assert delivery == DeliverySettings()
    loaded.check()


def test_the_commented_file_has_every_key_of_the_configuration() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    keys = {
        line.removeprefix("# ").partition(" = ")[0] for line in text.splitlines() if " = " in line
    }
    tables = {"tls", "root", "trust", "authentication", "delivery"}
    for kind, left_out in (
        (Config, tables),
        (Tls, set()),
        (RootKey, set()),
        (Trust, set()),
        (Settings, set()),
    ):
        assert {f.name for f in fields(kind)} - left_out <= keys
    for table in tables:
        assert f"[{table}]" in text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("relm = 'x'", "unknown relm"),
        ("realm = 7", "should be a text"),
        ("services = 'delivery'", "should be a list"),
        ("allow_plaintext = 1", "should be true or false"),
        ("[authentication]\nmax_devices = true", "should be an integer"),
        ("[authentication]\nmax_devices = 1.5", "should be an integer"),
        ("[authentication]\nrequests_interval = 'x'", "should be a number"),
        ("tls = 'x'", "should be a table"),
        ("[tls]\ncertificate = 'x'", "key must be given"),
        ("delivery = 3", "should be a table"),
        ("realm = ", "is not TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(DecodeError, match=complaint):
        load(written(tmp_path, text))


def test_a_file_that_is_not_there_is_an_error_when_it_was_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot read"):
        load(tmp_path / "none.toml")
    assert load(None) == Config()


def test_paths_start_at_the_files_directory(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, "data = 'd'\n[tls]\ncertificate = '/c'\nkey = 'k'"))
    assert loaded.data == tmp_path / "d"
    assert loaded.tls == Tls(Path("/c"), tmp_path / "k")


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "example.org:1"])
def test_an_address_that_others_reach_needs_tls_or_an_explicit_word(listen: str) -> None:
    with pytest.raises(StateError, match="refusing to listen"):
        Config(listen=listen).check()
    Config(listen=listen, allow_plaintext=True).check()
    Config(listen=listen, tls=Tls(Path("c"), Path("k"))).check()


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "[::1]:1", "localhost:1", "127.8.8.8:0"])
def test_a_loopback_address_needs_no_tls(listen: str) -> None:
    Config(listen=listen).check()


@pytest.mark.parametrize("host", ["", "127.0.0.1.example.org", "0.0.0.0", "::"])
def test_what_only_looks_like_loopback_is_not(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "config",
    [
        Config(listen="8470"),
        Config(listen="127.0.0.1:99999"),
        Config(listen=":8470"),
        Config(services=()),
        Config(services=("push",)),
        Config(realm="Example"),
    ],
)
def test_a_configuration_that_cannot_be_served_is_refused(config: Config) -> None:
    with pytest.raises(CoterieError):
        config.check()


def test_the_environment_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COTERIE_CONFIG", str(tmp_path / "mine.toml"))
    assert default_path() == tmp_path / "mine.toml"


def test_systemds_credential_is_the_passphrase_if_none_is_configured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Config().passphrase_file.parent != tmp_path
    (tmp_path / "root-passphrase").write_text("x")
    assert Config().passphrase_file == tmp_path / "root-passphrase"
    mine = load(written(tmp_path, "[root]\npassphrase_file = 'mine'"))
    assert mine.passphrase_file == tmp_path / "mine"
