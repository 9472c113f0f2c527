"""The configuration file: every mistake is named, and nothing is served by accident."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from coterie.apps.config import (
    Config,
    Connections,
    RootKey,
    Tls,
    Trust,
    default_path,
    from_table,
    is_loopback,
    load,
)
from coterie.authentication.settings import Settings
from coterie.delivery.settings import Rates
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
    tables = {"tls", "root", "trust", "connections", "authentication", "delivery"}
    for kind, left_out in (
        (Config, tables),
        (Tls, set()),
        (RootKey, set()),
        (Trust, set()),
        (Connections, set()),
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
        ("[authentication]\ncertificate_lifetime = 0", "certificate_lifetime: 0 should be more"),
        ("[authentication]\nkey_overlap = -1", "key_overlap: -1 should be 0 or more"),
        ("[authentication]\nrequests_interval = inf", "requests_interval: inf should be 0 or more"),
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
        Config(trusted_proxies=("proxy",)),
        Config(trusted_proxies=("*",)),
        Config(authentication=Settings(list_lifetime=3600, list_interval=3600)),
    ],
)
def test_a_configuration_that_cannot_be_served_is_refused(config: Config) -> None:
    with pytest.raises(CoterieError):
        config.check()


def test_what_may_be_left_unlimited_or_out_may_be_zero(tmp_path: Path) -> None:
    load(written(tmp_path, "[authentication]\nrequests_interval = 0\nrenewal_grace = 0")).check()
    Config(trusted_proxies=("10.0.0.1", "10.0.0.0/8", "fd00::/8")).check()


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"max_entry": -1}, "max_entry: -1 should be more than 0"),
        ({"sweep_interval": 0.0}, "sweep_interval: 0.0 should be more than 0"),
        ({"rates": {"bundles": {"burst": 0, "interval": 1.0}}}, "bundles: burst: 0"),
        ({"min_retention": 90_000, "max_retention": 80_000}, "must not be more than max_retention"),
        ({"prefix_ipv4": 33}, "up to 32 bits"),
        ({"prefix_ipv6": 129}, "up to 32 bits"),
    ],
)
def test_settings_of_the_delivery_service_that_make_no_sense_are_refused(
    table: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(CoterieError, match=complaint):
        from_table(DeliverySettings, table, where="delivery", base=Path()).check()
    from_table(DeliverySettings, {"prefix_ipv4": 0}, where="", base=Path()).check()


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


def test_every_setting_stands_in_the_page_for_operators_with_its_default() -> None:
    page = (EXAMPLE.parents[1] / "docs" / "self-hosting.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    told = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    # That one is for applications that serve the Delivery Service themselves.
    left_out = {"rates", "trusted_proxies"}
    for kind in (Settings, DeliverySettings, Rates):
        assert {f.name for f in fields(kind)} - left_out <= set(told), kind
    for f in fields(Rates):
        rate = getattr(Rates(), f.name)
        assert told[f.name].strip() == f"{rate.burst}, {rate.interval}", f.name
