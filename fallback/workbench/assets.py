"""The page's own files, read once: nothing on disk can be reached through a path in a request."""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

STATIC: Final = Path(__file__).parent / "static"
MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


def routes() -> list[Route]:
    """Return one route a file under /static, and the page itself at /."""
    files = sorted(path for path in STATIC.rglob("*") if path.suffix in MEDIA_TYPES)
    return [_route("/" if path.name == "index.html" else f"/static/{path.relative_to(STATIC)}", path) for path in files]


def _route(address: str, path: Path) -> Route:
    content = path.read_bytes()
    headers = {"etag": f'"{sha256(content).hexdigest()[:32]}"', "cache-control": "no-cache"}
    reply = partial(_reply, content=content, media_type=MEDIA_TYPES[path.suffix], headers=headers)
    return Route(address, reply, methods=["GET", "HEAD"])


async def _reply(request: Request, *, content: bytes, media_type: str, headers: dict[str, str]) -> Response:
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
