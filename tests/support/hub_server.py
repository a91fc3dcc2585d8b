"""A server on this machine that answers as the Hugging Face hub does: with lists of files, and with the files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_of_an_account_that_accepted_the_licence"


@dataclass
class HubRepository:
    """A repository: its files, its card, and whether a token is needed."""

    files: dict[str, bytes]
    card: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files)).encode()).hexdigest()


@dataclass
class Hub:
    """The server: repositories by name, what was asked of it, and files whose first answer breaks off."""

    repositories: dict[str, HubRepository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    broken: dict[str, int] = field(default_factory=dict)
    """The bytes after which an answer with a file breaks off, once."""
    endpoint: str = ""

    def add(self, name: str, folder: Path, *, into: str = "", **more: str | bool) -> HubRepository:
        """Add a folder's files to a repository."""
        files = {into + file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*.*"))}
        found = self.repositories.setdefault(name, HubRepository(files={}))
        found.files |= files
        found.gated = bool(more.pop("gated", found.gated))
        found.card |= {key: str(value) for key, value in more.items()}
        return found

    def fetched(self) -> list[str]:
        """The files whose contents were asked for, ranges of headers left out."""
        lines = [line.removeprefix("GET ") for line in self.asked if line.startswith("GET ")]
        return [line for line in lines if not line.startswith(("api/", "/api/"))]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/").split("/")
        if path[:2] == ["api", "models"]:
            name = "/".join(path[2:4])
            self.hub.asked.append(f"{self.command} /api/{name}")
            self._describe(name)
            return
        name, file = "/".join(path[:2]), "/".join(path[4:])
        ranged = self.headers.get("Range", "")
        self.hub.asked.append(f"{self.command} {name}:{file}" + (f" {ranged}" if ranged else ""))
        self._file(name, file, ranged)

    def _describe(self, name: str) -> None:
        found = self.hub.repositories.get(name)
        if found is None:
            self._refuse(401, "RepoNotFound", "Invalid username or password.")
            return
        files = [{"rfilename": name, "size": len(data)} for name, data in found.files.items()]
        body = {"id": name, "modelId": name, "sha": found.commit, "siblings": files, "cardData": found.card}
        self._send(200, json.dumps(body | {"private": False, "tags": [], "downloads": 0, "likes": 0}).encode())

    def _file(self, name: str, file: str, ranged: str) -> None:
        found = self.hub.repositories.get(name)
        if found is None:
            self._refuse(401, "RepoNotFound", "Invalid username or password.")
        elif found.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401, "GatedRepo", f"Access to model {name} is restricted.")
        elif file not in found.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
        else:
            data = found.files[file]
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": found.commit}
            if not ranged:
                self._send(200, data, headers, cut=self.hub.broken.pop(file, None) if self.command == "GET" else None)
                return
            first, _, last = ranged.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1 if last else len(data), len(data))
            part = data[int(first) : end]
            self._send(206, part, headers | {"Content-Range": f"bytes {first}-{end - 1}/{len(data)}"})

    def _refuse(self, status: int, code: str, words: str) -> None:
        self._send(status, json.dumps({"error": words}).encode(), {"X-Error-Code": code, "X-Error-Message": words})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), "Accept-Ranges": "bytes", **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True


@contextmanager
def serving() -> Iterator[Hub]:
    """Run a hub while the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that is empty, and this process's only one; its cache is `tmp_path / "hub"`."""
    from huggingface_hub import constants

    with serving() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        template = running.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield running
