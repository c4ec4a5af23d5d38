"""A web server on this computer that serves files well or badly, as a test asks."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class ServedFile:
    """Say what one address answers.

    :ivar supports_range: whether a Range request is honored or answered with the whole file.
    :ivar cuts: for each request in turn, after how many bytes of the body the connection breaks; then it holds.
    :ivar stalls_after: after how many bytes of the body the server falls silent.
    :ivar declares_length: whether the answer has a Content-Length.
    """

    content: bytes = b""
    status: int = 200
    content_type: str = "application/octet-stream"
    supports_range: bool = True
    cuts: list[int] = field(default_factory=list)
    stalls_after: int | None = None
    declares_length: bool = True


@dataclass(frozen=True)
class SeenRequest:
    """Remember what a client asked for."""

    path: str
    range: str | None
    authorization: str | None


class FileServer:
    """Serve :attr:`files` on a free port of 127.0.0.1 and remember the requests; a context manager."""

    def __init__(self) -> None:
        self.files: dict[str, ServedFile] = {}
        self.requests: list[SeenRequest] = []
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.address = f"http://{self.host}"

    def __enter__(self) -> FileServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def serve(self, path: str, content: bytes = b"", **behavior: object) -> str:
        """Serve a file and return its address."""
        self.files[path] = ServedFile(content, **behavior)  # type: ignore[arg-type]
        return f"{self.address}{path}"

    def serve_index(self, project: str, filename: str, content: bytes) -> str:
        """Serve a package index (PEP 691) with one file, and return the index's address."""
        self.serve(f"/packages/ab/cd/{filename}", content)
        page = {"files": [{"filename": filename, "url": f"../../packages/ab/cd/{filename}", "hashes": {}}]}
        self.serve(f"/simple/{project}/", json.dumps(page).encode(), content_type="application/vnd.pypi.simple.v1+json")
        return f"{self.address}/simple"

    def ranges(self, path: str) -> list[str | None]:
        """Return the Range headers of the requests for one file, in their order."""
        return [request.range for request in self.requests if request.path == path]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        """Return the class that answers requests from :attr:`files`."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Answer one request."""
                wanted = self.headers.get("Range")
                outer.requests.append(SeenRequest(self.path, wanted, self.headers.get("Authorization")))
                file = outer.files.get(self.path, ServedFile(status=404))
                start = 0
                if wanted and file.supports_range and file.status == 200:
                    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                body = file.content[start:]
                self.send_response(206 if start else file.status)
                self.send_header("Content-Type", file.content_type)
                if start:
                    total = len(file.content)
                    self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
                if file.declares_length:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if file.cuts:
                    body = body[: file.cuts.pop(0)]
                if file.stalls_after is not None:
                    self.wfile.write(body[: file.stalls_after])
                    outer.closing.wait()
                else:
                    self.wfile.write(body)

            def do_CONNECT(self) -> None:
                """Refuse a tunnel, as a proxy that knows no other host, but remember that it was asked for."""
                outer.requests.append(SeenRequest(f"CONNECT {self.path}", None, self.headers.get("Authorization")))
                self.send_error(403)

            def log_message(self, format: str, *args: object) -> None:
                """Keep the test's output clean."""

        return Handler
