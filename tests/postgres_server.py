"""A PostgreSQL server of the tests' own, on loopback, in a temporary folder."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

_SECONDS = 60


@contextmanager
def running_postgres() -> Iterator[str]:
    """Its URI, without a database: whoever asks as "tester" may do all, as "guarded" needs the password "se#cret"."""
    programs = _programs()
    if programs is None:
        pytest.skip("there is no PostgreSQL server on this machine (Debian's package postgresql has one)")
    user = _user()
    with tempfile.TemporaryDirectory(prefix="nestkala-postgres-") as folder:
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        data = Path(folder, "data")
        made = [programs / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True, user=user, cwd=folder)
        rules = data / "pg_hba.conf"
        rules.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = f"listen_addresses=127.0.0.1 port={port} unix_socket_directories= fsync=off shared_buffers=32MB"
        options = [part for setting in settings.split() for part in ("-c", setting)]
        with Path(folder, "log").open("w") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, *options], user=user, cwd=folder, stdout=log, stderr=log
            )
        try:
            uri = f"postgresql://tester@127.0.0.1:{port}"
            _wait(uri, server, Path(folder, "log"))
            yield uri
        finally:
            server.send_signal(signal.SIGQUIT)  # at once
            server.wait(_SECONDS)


def _programs() -> Path | None:
    """The folder of initdb and postgres, of the newest version."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    usable = [folder for folder in folders if (folder / "initdb").is_file() and (folder / "postgres").is_file()]
    return max(usable, key=lambda folder: int("".join(filter(str.isdigit, folder.parent.name)) or 0), default=None)


def _user() -> str | None:
    """Who runs the server: root may not."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")


def _wait(uri: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(10 * _SECONDS):
        assert server.poll() is None, log.read_text()
        try:
            psycopg.connect(f"{uri}/postgres").close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"the server did not answer: {log.read_text()}")
