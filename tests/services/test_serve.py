"""`coterie serve` and the operator's commands as real processes, and the files in `deploy/`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from coterie.apps.config import load
from coterie.apps.serve import open_authentication
from coterie.errors import ServiceError
from coterie.transport.api import ServiceInfo
from coterie.transport.as_api import Issued, RealmInfo
from coterie.transport.authentication import AuthenticationClient
from tests.installation import CONFIG, Installation

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def here(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def test_both_services_start_answer_and_stop(here: Installation) -> None:
    with here.serving() as (url, process):
        info = ServiceInfo.decode(httpx.get(f"{url}/v1/service").content)
        assert len(info.receipt_key) == 32
        realm = RealmInfo.decode(httpx.get(f"{url}/authentication/v1/realm").content)
        assert realm.realm == b"example.org"
        report = json.loads(here.ok("status", "--server", "--json", "--url", url))
        assert [r["ready"] for r in report.values()] == [True, True]
        user = json.loads(here.ok("user", "add", "alice", "--json"))
        assert user["user"] == "alice@example.org"
    assert process.returncode == -signal.SIGTERM
    names = {p.name for p in (here.home / "data").rglob("*.db")}
    assert names == {"authentication.db", "logs.db", "directory.db"}
    assert all(not p.stat().st_mode & 0o077 for p in (here.home / "data").rglob("*"))
    report = here.run("status", "--server", "--json", "--url", url)
    assert report.returncode == 1
    assert not any(r["ready"] for r in json.loads(report.stdout).values())


def test_the_operators_commands_answer_scripts(here: Installation) -> None:
    def answer(*words: str) -> Any:
        return json.loads(here.ok(*words, "--json"))

    code = answer("user", "add", "alice")
    assert code["user"] == "alice@example.org"
    assert abs(answer("user", "code", "alice")["expires_at"] - code["expires_at"]) < 60
    assert answer("user", "devices", "alice") == []
    assert answer("user", "revoke", "alice") == {"user": "alice@example.org", "device": None}
    answer("user", "add", "bob")
    assert answer("user", "delete", "bob", "--yes") == {"user": "bob@example.org"}
    copied = answer("backup", str(here.home / "copy"))
    assert copied["directory"] == str(here.home / "copy")
    assert "authentication/authentication.db" in copied["files"]
    shutil.rmtree(here.home / "data")
    assert answer("restore", copied["directory"])["files"] == copied["files"]
    refused = here.fails("restore", copied["directory"], "--json")
    assert "is not empty" in json.loads(refused)["error"]


def test_the_operators_commands_work_on_the_data_that_is_served(here: Installation) -> None:
    elsewhere = ("--data", str(here.home / "elsewhere"))
    with here.serving(*elsewhere) as (url, _):
        here.ok("user", "add", "alice", *elsewhere)
        realm = RealmInfo.decode(httpx.get(f"{url}/authentication/v1/realm").content)
        anchor = here.home / "elsewhere" / "authentication" / "root.der"
        assert realm.anchors[0].cert_data == anchor.read_bytes()
    for words in (("user", "code"), ("user", "devices"), ("user", "revoke"), ("user", "delete")):
        here.ok(*words, "alice", *elsewhere, *(["--yes"] if "delete" in words else []))
    assert json.loads(here.ok("user", "list", "--json", *elsewhere))["deleted"] == 1
    here.ok("backup", str(here.home / "copy"), *elsewhere)
    here.ok("restore", str(here.home / "copy"), "--data", str(here.home / "anew"))
    assert not (here.home / "data").exists()


def test_the_receipt_key_and_the_root_outlast_a_restart(here: Installation) -> None:
    def keys() -> tuple[bytes, bytes]:
        with here.serving() as (url, _):
            info = ServiceInfo.decode(httpx.get(f"{url}/v1/service").content)
            realm = RealmInfo.decode(httpx.get(f"{url}/authentication/v1/realm").content)
            return info.receipt_key, realm.anchors[0].cert_data

    assert keys() == keys()


def test_the_services_run_apart_and_the_delivery_service_follows_the_revocation_list(
    here: Installation, tmp_path: Path
) -> None:
    with here.serving("--only", "authentication") as (url, _):
        assert httpx.get(f"{url}/v1/service").status_code == 404
        apart = f"""
            listen = "127.0.0.1:0"
            services = ["delivery"]
            data = "data"
            [trust]
            anchors = ["{here.home}/data/authentication/root.der"]
            authentication_url = "{url}/authentication"
        """
        other = Installation(tmp_path / "other", apart)
        with other.serving() as (delivery_url, _):
            assert httpx.get(f"{delivery_url}/v1/service").status_code == 200
            assert httpx.get(f"{delivery_url}/authentication/v1/realm").status_code == 404
            deadline = time.monotonic() + 10
            asked = 'operation="revocations",status="200"'
            while asked not in httpx.get(f"{url}/authentication/metrics").text:
                assert time.monotonic() < deadline, (other.home / "log").read_text()
                time.sleep(0.1)
        assert "not renewed" not in (other.home / "log").read_text()


def test_a_delivery_service_alone_needs_somebody_to_trust(here: Installation) -> None:
    assert "trust.anchors" in here.fails("serve", "--only", "delivery")


def test_a_second_server_on_the_same_data_is_refused(here: Installation) -> None:
    with here.serving():
        assert "another process serves" in here.fails("serve")


def test_a_port_that_is_taken_is_an_error(here: Installation, tmp_path: Path) -> None:
    with here.serving() as (url, _):
        other = Installation(tmp_path / "other", CONFIG.replace(":0", ":" + url.rpartition(":")[2]))
        assert "cannot listen" in other.fails("serve")


def test_plain_http_for_others_is_refused(here: Installation) -> None:
    assert "refusing to listen" in here.fails("serve", "--listen", "0.0.0.0:0")


def test_unknown_services_settings_and_files_are_refused_in_one_line(here: Installation) -> None:
    assert "must be one or both" in here.fails("serve", "--only", "push")
    assert "cannot read" in here.fails("serve", "--config", "/nowhere.toml")
    Installation(here.home, CONFIG + "[delivery]\nno_such = 1\n")
    assert "unknown no_such" in here.fails("serve")


def _certificate(directory: Path, *, days: int = 60) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=100))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "tls.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (directory / "tls.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )


def test_tls_is_spoken_with_the_configured_certificate(tmp_path: Path) -> None:
    _certificate(tmp_path)
    tls = '[tls]\ncertificate = "tls.pem"\nkey = "tls.key"\n'
    here = Installation(tmp_path, CONFIG + tls)
    with here.serving() as (url, _):
        trusted = ssl.create_default_context(cafile=tmp_path / "tls.pem")
        assert httpx.get(f"{url}/v1/service", verify=trusted).status_code == 200
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{url}/v1/service")
    assert "TLS certificate" not in (tmp_path / "log").read_text()
    broken = Installation(tmp_path, CONFIG + tls.replace("tls.key", "nothing.key"))
    assert "tls.key: cannot read" in broken.fails("serve")
    broken = Installation(tmp_path, CONFIG + tls.replace("tls.key", "tls.pem"))
    assert f"{tmp_path}/tls.pem are no PEM files" in broken.fails("serve")


def test_a_tls_handshake_that_drips_ends(tmp_path: Path) -> None:
    _certificate(tmp_path)
    tables = '[tls]\ncertificate = "tls.pem"\nkey = "tls.key"\n[connections]\nhead_timeout = 2.0\n'
    with Installation(tmp_path, CONFIG + tables).serving() as (url, _):
        host, _, port = url.removeprefix("https://").partition(":")
        with socket.create_connection((host, int(port)), timeout=0.2) as slow:
            began = time.monotonic()
            # A ClientHello that never is complete.
            slow.send(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03")
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < began + 30:
                    slow.send(b"a")
                    with contextlib.suppress(TimeoutError):
                        if not slow.recv(1):
                            break
            assert 1.5 < time.monotonic() - began < 30
        trusted = ssl.create_default_context(cafile=tmp_path / "tls.pem")
        assert httpx.get(f"{url}/v1/service", verify=trusted).status_code == 200


def test_people_trust_whom_their_platform_trusts(tmp_path: Path) -> None:
    _certificate(tmp_path)
    here = Installation(tmp_path, CONFIG + '[tls]\ncertificate = "tls.pem"\nkey = "tls.key"\n')
    here.environment |= {"COTERIE_KEY": "file", "COTERIE_PROFILE": str(tmp_path / "profile")}
    with here.serving() as (url, _):
        code = json.loads(here.ok("user", "add", "alice", "--json"))["code"]
        words = "login", "alice", "--code", code, "--server", url
        assert "CERTIFICATE_VERIFY_FAILED" in here.fails(*words, code=75)
        here.environment["SSL_CERT_FILE"] = str(tmp_path / "tls.pem")
        here.ok(*words)
        here.ok("new", "Friends")


@pytest.mark.parametrize("tls", [False, True])
def test_who_gives_an_address_with_the_wrong_scheme_is_told_the_right_one(
    tmp_path: Path, tls: bool
) -> None:
    _certificate(tmp_path)
    tables = '[tls]\ncertificate = "tls.pem"\nkey = "tls.key"\n' if tls else ""
    here = Installation(tmp_path, CONFIG + tables)
    here.environment |= {"COTERIE_KEY": "file", "COTERIE_PROFILE": str(tmp_path / "profile")}
    with here.serving() as (url, _):
        place = url.partition("://")[2]
        wrong = f"{'http' if tls else 'https'}://{place}"
        what = "speaks TLS" if tls else "does not speak TLS"
        said = f"the service at {wrong} {what}: its address is {url}"
        login = "login", "alice", "--code", "7KQM2-3F5TA-9XWB4-C8RD1", "--server", wrong
        assert said in here.fails(*login)
        assert json.loads(here.fails(*login, "--json"))["retry_after"] is None
        reports = json.loads(here.run("status", "--server", "--url", wrong, "--json").stdout)
        assert [report["detail"] for report in reports.values()] == [said, said]


@pytest.mark.parametrize(("days", "said"), [(3, "ends soon"), (-1, "has ended")])
def test_a_certificate_that_clients_refuse_or_soon_will_is_told_at_the_start(
    tmp_path: Path, days: int, said: str
) -> None:
    _certificate(tmp_path, days=days)
    here = Installation(tmp_path, CONFIG + '[tls]\ncertificate = "tls.pem"\nkey = "tls.key"\n')
    with here.serving():
        pass
    assert f"the TLS certificate {said}" in (tmp_path / "log").read_text()


def test_a_data_directory_that_cannot_be_used_is_an_error(here: Installation) -> None:
    (here.home / "file").touch()
    for path in ("file", "file/below"):
        said = here.fails("serve", "--data", str(here.home / path))
        assert "cannot be used: " in said, said
        assert "Traceback" not in said


def test_a_receipt_key_that_was_cut_off_is_named(here: Installation) -> None:
    with here.serving():
        pass
    (here.home / "data" / "delivery" / "receipt.key").write_bytes(b"short")
    assert "receipt.key has 5 bytes, must have 32" in here.fails("serve")


def test_a_trust_anchor_that_is_none_is_named(here: Installation) -> None:
    anchor = here.home / "anchor"
    trust = f'[trust]\nanchors = ["{anchor}"]\nauthentication_url = "http://127.0.0.1:1"\n'
    alone = Installation(here.home, CONFIG + trust)
    for content in (b"junk", b"-----BEGIN CERTIFICATE-----\n"):
        anchor.write_bytes(content)
        assert f"the trust anchor {anchor} is no root" in alone.fails("serve", "--only", "delivery")


def test_a_passphrase_is_made_once_and_never_in_the_place_of_a_lost_one(
    tmp_path: Path,
) -> None:
    here = Installation(tmp_path, CONFIG.partition("[root]")[0])
    said = here.run("user", "add", "alice").stderr
    made = next((tmp_path / ".config").rglob("root-passphrase-*"))
    assert str(made) in said.replace("\n", "")
    made.unlink()
    assert "put it back" in here.fails("user", "add", "bob")
    assert not made.exists()


def test_no_log_line_names_a_user_or_an_address_even_when_everything_is_logged(
    tmp_path: Path,
) -> None:
    here = Installation(tmp_path, 'log_level = "debug"\n' + CONFIG)
    with here.serving() as (url, _):
        here.ok("user", "add", "alice")
        httpx.post(f"{url}/authentication/v1/enrol", content=b"alice")
        httpx.post(f"{url}/v1/directory/claim", content=b"alice")
        httpx.get(f"{url}/v1/alice")
    lines = [json.loads(line) for line in (here.home / "log").read_text().splitlines()]
    assert any(line.get("operation") == "enrol" for line in lines)
    said = [line for line in lines if line["event"] != "listening"]
    assert "alice" not in str(said)
    assert "127.0.0.1" not in str(said)


# -- users


def test_the_operator_manages_users(here: Installation) -> None:
    assert "code:" in here.ok("user", "add", "alice")
    assert "taken" in here.fails("user", "add", "alice")
    assert "not a user name" in here.fails("user", "add", "Alice!")
    assert json.loads(here.ok("user", "code", "alice", "--json"))["code"]
    assert json.loads(here.ok("user", "devices", "alice", "--json")) == []
    assert "no device" in here.fails("user", "revoke", "alice", "--device", "0" * 32)
    here.ok("user", "revoke", "alice")
    assert "revoked" in here.fails("user", "code", "alice")
    assert "no user" in here.fails("user", "delete", "bob", "--yes")
    here.ok("user", "delete", "alice", "--yes")
    assert "no user" in here.fails("user", "devices", "alice")


def test_deleting_asks_first(here: Installation) -> None:
    here.ok("user", "add", "alice")
    done = subprocess.run(
        here.command("user", "delete", "alice"),
        input="n\n",
        text=True,
        env=here.environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert here.ok("user", "devices", "alice", "--json")


# -- backup and restore


def test_a_backup_made_while_serving_is_restored_and_served(
    here: Installation, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    with here.serving() as (url, _):
        here.ok("user", "add", "alice")
        here.ok("backup", str(copy))
        before = httpx.get(f"{url}/authentication/v1/realm").content
    assert not (copy / "passphrase").exists()
    assert all(not p.stat().st_mode & 0o077 for p in (copy, *copy.rglob("*")))
    assert "not empty" in here.fails("restore", str(copy))
    shutil.rmtree(here.home / "data")
    here.ok("restore", str(copy))
    assert not (here.home / "data").stat().st_mode & 0o077
    assert "taken" in here.fails("user", "add", "alice")
    with here.serving() as (url, _):
        assert httpx.get(f"{url}/authentication/v1/realm").content == before


def test_a_backup_that_was_changed_damaged_or_is_none_is_not_restored(
    here: Installation, tmp_path: Path
) -> None:
    here.ok("user", "add", "alice")
    copy = tmp_path / "copy"
    here.ok("backup", str(copy))
    assert "is there already" in here.fails("backup", str(copy))
    shutil.rmtree(here.home / "data")
    manifest = json.loads((copy / "backup.json").read_text())
    key = copy / "authentication" / "code.key"
    kept = key.read_bytes()
    key.write_bytes(bytes(32))
    assert "was changed" in here.fails("restore", str(copy))
    key.unlink()
    assert "not a complete backup" in here.fails("restore", str(copy))
    key.write_bytes(kept)
    for change, complaint in (
        ({"format": 99}, "backup format 99"),
        ({"files": {"../x": "00"}}, "leads out"),
        ({"files": {"/etc/passwd": "00"}}, "leads out"),
    ):
        (copy / "backup.json").write_text(json.dumps(manifest | change))
        assert complaint in here.fails("restore", str(copy))
    for junk in ("[]", '{"format": 1, "files": []}', "[" * 100_000, "null"):
        (copy / "backup.json").write_text(junk)
        assert "not a complete backup" in here.fails("restore", str(copy))
    assert not (here.home / "data").exists()
    assert "not a complete backup" in here.fails("restore", str(tmp_path / "nothing"))


def test_services_do_not_start_on_data_that_was_restored_in_part(here: Installation) -> None:
    (here.home / "data").mkdir()
    (here.home / "data" / ".restoring").touch()
    for command in (("serve",), ("user", "add", "alice"), ("backup", str(here.home / "copy"))):
        assert "was cut off: run `coterie restore` again" in here.fails(*command)
    # No key was made in the place of one that is still to come.
    assert [path.name for path in (here.home / "data").iterdir()] == [".restoring"]


def test_there_is_nothing_to_back_up_before_the_first_start(here: Installation) -> None:
    assert "nothing to copy" in here.fails("backup", str(here.home / "copy"))


def test_a_database_of_a_newer_version_is_not_served(here: Installation) -> None:
    here.ok("user", "add", "alice")
    database = sqlite3.connect(here.home / "data" / "authentication" / "authentication.db")
    database.execute("PRAGMA user_version = 99")
    database.close()
    assert "newer version" in here.fails("serve")


def test_without_the_extra_the_command_says_what_to_install(here: Installation) -> None:
    hide = (
        "import importlib.util as u, sys; find = u.find_spec; "
        "u.find_spec = lambda name, *a: None if name == 'uvicorn' else find(name, *a); "
        "from coterie.apps.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide, "serve"],
        capture_output=True,
        text=True,
        env=here.environment,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'coterie[serve]'" in done.stderr


# -- SIGKILL


class _Key:
    def __init__(self) -> None:
        self.private = ed25519.Ed25519PrivateKey.generate()
        self.signature_key = self.private.public_key().public_bytes_raw()

    def sign(self, content: bytes) -> bytes:
        return self.private.sign(content)


async def _enrol_until_killed(
    url: str, codes: list[str], keys: list[_Key], process: subprocess.Popen[str], kill_after: int
) -> list[Issued | None]:
    """The answers, None where there was none; the server is killed after so many, while others are under way."""
    done = 0
    # Few at a time: on a fast machine the answers of all might be on their way before the server dies.
    under_way = asyncio.Semaphore(8)

    async def enrol(client: AuthenticationClient, i: int) -> Issued | None:
        nonlocal done
        try:
            async with under_way:
                issued = await client.enrol(keys[i], f"user{i}", codes[i])
        except ServiceError:
            return None
        done += 1
        if done == kill_after:
            process.kill()
        return issued

    async with httpx.AsyncClient() as http:
        client = _client(http, url)
        return await asyncio.gather(*(enrol(client, i) for i in range(len(codes))))


def _client(http: httpx.AsyncClient, url: str) -> AuthenticationClient:
    return AuthenticationClient(
        http, f"{url}/authentication", "example.org", clock=lambda: int(time.time())
    )


def test_an_answered_enrolment_outlasts_sigkill_and_an_unanswered_one_is_all_or_nothing(
    here: Installation,
) -> None:
    Installation(
        here.home, CONFIG + "[authentication]\nenrolments_burst = 1000\nrequests_burst = 1000\n"
    )
    users = range(40)
    service = open_authentication(load(here.config))
    codes = [service.add_user(f"user{i}").code.decode() for i in users]
    keys = [_Key() for _ in users]
    answers: dict[int, Issued] = {}
    for kill_after in (2, 11, 23):
        with here.serving() as (url, process):
            got = asyncio.run(_enrol_until_killed(url, codes, keys, process, kill_after))
        assert None in got, "the server was not killed in the middle"
        for i, issued in enumerate(got):
            if issued is not None:
                assert answers.setdefault(i, issued) == issued

    async def again(url: str) -> list[Issued]:
        async with httpx.AsyncClient() as http:
            client = _client(http, url)
            return [await client.enrol(keys[i], f"user{i}", codes[i]) for i in users]

    with here.serving() as (url, _):
        final = asyncio.run(again(url))
    assert answers
    assert all(final[i] == issued for i, issued in answers.items())
    assert all(len(service.devices_of(f"user{i}")) == 1 for i in users)
    service.close()


# -- what is deployed


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "coterie.service"
    text = (DEPLOY / "coterie.service").read_text()
    unit.write_text(text.replace("/opt/coterie/bin/coterie", sys.executable))
    done = subprocess.run(
        [analyze, "verify", str(unit)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "coterie" in line]
    assert not complaints
    assert done.returncode == 0, done.stderr


def test_the_container_file_has_no_complaint_of_the_linter() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed (extra dev)")
    command = [str(hadolint), str(DEPLOY / "Containerfile")]
    done: Any = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
