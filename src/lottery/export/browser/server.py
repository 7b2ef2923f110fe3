"""A web server for one page on this machine."""

import contextlib
import mimetypes
import threading
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_TYPES = {".wasm": "application/wasm", ".js": "text/javascript"}


@contextlib.contextmanager
def serving(routes: Mapping[str, Path]) -> Iterator[str]:
    """Serve files, and folders with all that they hold, under their ``routes``; yield the address.

    The page is isolated from other origins (COOP and COEP), which threads of WebAssembly and
    clocks of 5 microseconds require.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = _resolve(routes, self.path.partition("?")[0])
            if path is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            content = path.read_bytes()
            guess = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", _TYPES.get(path.suffix, guess))
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _resolve(routes: Mapping[str, Path], path: str) -> Path | None:
    """The file that ``path`` asks for, if it is one of the ``routes`` or within one."""
    if path in routes and routes[path].is_file():
        return routes[path]
    for prefix, root in routes.items():
        if root.is_dir() and path.startswith(prefix + "/"):
            found = (root / path.removeprefix(prefix + "/")).resolve()
            if found.is_file() and found.is_relative_to(root.resolve()):
                return found
    return None
