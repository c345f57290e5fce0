"""Lets only the player's own page reach the server, whatever other pages the browser shows.

- The address has a random token, without which nothing is answered.
- The Host must be the server's own: with another name that leads here, pages of others would count
  as of the same origin (DNS rebinding).
- An Origin must be the server's own, and no other page may embed or read anything.
"""

import ipaddress
import secrets
import urllib.parse

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address is a secret
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class OnlyOwnPage:
    """ASGI middleware that refuses requests without the token, or of another host or origin.

    Args:
      app: what answers the others; the token's part of the path is its root.
      token: the secret.
      host: what the server is bound to.
      port: its port.
    """

    def __init__(self, app: ASGIApp, token: str, host: str, port: int):
        self._app, self._token, self._host, self._port = app, token, host, port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if reason := self._refusal(scope):
            response = PlainTextResponse(f"Refused: {reason}.", 403)
            await response(scope, receive, send_with_headers)
        else:
            start = f"{scope.get('root_path', '')}/{self._token}"
            await self._app({**scope, "root_path": start}, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> str:
        """Returns why a request is refused; "" if it is not."""
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            return "this server has another name"
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            return "the request comes from another page"
        _, first, *rest = [*scope["path"].split("/"), ""]
        if not rest or not secrets.compare_digest(first.encode(), self._token.encode()):
            return "the address lacks its token; take the one that sccunet player printed"
        return ""

    def _is_own(self, host: str) -> bool:
        try:
            parts = urllib.parse.urlsplit(f"//{host}")
            name, port = parts.hostname, parts.port or 80
        except ValueError:
            return False
        if parts.netloc != host or "@" in host or port != self._port:
            return False
        if name in ("127.0.0.1", "localhost", "::1", self._host.lower()):
            return True
        if self._host not in ("0.0.0.0", "::"):
            return False
        try:  # of any of this machine's devices; an address needs no name server
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False
