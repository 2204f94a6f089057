"""Where backups go: a directory, S3-compatible storage or an SSH server, by one set of moves. It knows nothing about realms.

All three go through fsspec. Secrets are never part of an address: S3 takes them from AWS's usual chain (environment,
~/.aws, instance role; AWS_ENDPOINT_URL for other providers), SSH from the agent or ~/.ssh; a host must be in known_hosts.
"""

import contextlib
import hashlib
import importlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from core.durable import sync_file, sync_folder
from core.errors import RealmError, UserError, nearest

PIECE_BYTES = 8 << 20
SECONDS = 30.0  # until a server that does not answer is given up
EXTRAS = {"s3": "s3fs", "sftp": "paramiko"}
INSTALL = "`.venv/bin/pip install -r requirements-backup.txt`"


class Missing(RealmError):
    """A file, folder or bucket that is not there."""


class Target:
    """One place, open until `close`. Names are relative, with `/`; what goes wrong there is a RealmError that says where."""

    def __init__(self, url: str):
        self.url, self.scheme = url, _scheme(url)
        with self._told():
            self._fs, self._root = _open(url, self.scheme)
        self._root = self._root.rstrip("/")

    def __enter__(self) -> "Target":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.scheme == "sftp":
            self._fs.ftp.close()
            self._fs.client.close()
        elif self.scheme == "s3":
            self._fs.close_session(self._fs.loop, self._fs.s3)

    def send(self, source: Path, name: str) -> None:
        """Write `source` as `name`, flushed to disk where that is ours to do."""
        path = self._path(name)
        with self._told():
            if self.scheme != "s3":  # which has no folders; asking for one would make a bucket
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(source), path)
            if self.scheme == "file":
                sync_file(Path(path))
                sync_folder(Path(path).parent)

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of `name`, as they are there now."""
        with self._told(), self._fs.open(self._path(name), "rb", block_size=PIECE_BYTES) as file:
            while piece := file.read(PIECE_BYTES):
                yield piece

    def sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        for piece in self.pieces(name):
            digest.update(piece)
        return digest.hexdigest()

    def size(self, name: str) -> int | None:
        """Bytes of `name`, None where there is no such file."""
        with self._told():
            try:
                return self._fs.info(self._path(name))["size"]
            except FileNotFoundError:
                return None

    def modified(self, name: str) -> float:
        with self._told():
            moment = self._fs.modified(self._path(name))
        return moment.timestamp() if isinstance(moment, datetime) else float(moment)

    def names(self, folder: str) -> list[str]:
        """The files below `folder`, in the order of their names."""
        with self._told():
            try:
                found = self._fs.find(self._path(folder))
            except FileNotFoundError:
                return []
        return sorted(f"{folder}/{path.rpartition(f'/{folder}/')[2]}" for path in found)

    def remove(self, name: str) -> None:
        with self._told(), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as problem:
            raise Missing(f"{self.url}: {problem} is not there") from problem
        except _troubles(self.scheme) as problem:
            raise RealmError(f"{self.url}: {problem or type(problem).__name__}") from problem


def _scheme(url: str) -> str:
    """`file`, `s3` or `sftp`. Raises UserError for an address that must not be, or cannot be used here."""
    parts = urlsplit(url)
    scheme = parts.scheme or "file"
    if scheme not in ("file", *EXTRAS):
        hint = nearest(scheme, ("file", *EXTRAS))
        raise UserError(
            f"{url!r}: {scheme}:// is not known{hint or '.'} Give a directory, s3://BUCKET/PREFIX or sftp://USER@HOST/PATH"
        )
    if parts.password:
        raise UserError("a backup's address must hold no password; use AWS's usual chain or the SSH agent")
    if scheme != "file" and not parts.netloc:
        raise UserError(f"{url!r} names no {'bucket' if scheme == 's3' else 'host'}")
    if scheme in EXTRAS:
        try:
            importlib.import_module(EXTRAS[scheme])
        except ImportError:
            raise UserError(f"backups to {scheme}:// need {EXTRAS[scheme]}: {INSTALL} (the extra `backup`)") from None
    return scheme


def _open(url: str, scheme: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    if scheme == "s3":
        return url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    if scheme == "sftp":
        options = {"host_key_policy": _known_hosts(), "timeout": SECONDS, "banner_timeout": SECONDS}
        return url_to_fs(url, skip_instance_cache=True, **options)
    path = Path(urlsplit(url).path if url.startswith("file://") else url).expanduser().absolute()
    return url_to_fs(str(path))


def _known_hosts() -> Any:
    """Only hosts of ~/.ssh/known_hosts, as `ssh` would have it; fsspec's own choice is to trust whoever answers."""
    import paramiko

    class KnownHosts(paramiko.MissingHostKeyPolicy):
        def missing_host_key(self, client, hostname, key):
            known = paramiko.HostKeys()
            with contextlib.suppress(FileNotFoundError):
                known.load(os.path.expanduser("~/.ssh/known_hosts"))
            if not known.check(hostname, key):
                remedy = "connect once with ssh and compare its fingerprint"
                raise paramiko.SSHException(f"the key of {hostname} is not in ~/.ssh/known_hosts; {remedy}")

    return KnownHosts()


def _troubles(scheme: str) -> tuple[type[Exception], ...]:
    """What the library behind `scheme` raises when the place fails."""
    if scheme == "s3":
        from botocore.exceptions import BotoCoreError, ClientError

        return (OSError, BotoCoreError, ClientError)
    if scheme == "sftp":
        from paramiko import SSHException

        return (OSError, EOFError, SSHException)
    return (OSError,)
