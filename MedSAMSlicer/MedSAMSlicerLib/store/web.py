"""Files on the web: opened with a timeout on every socket, failures put into words."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import urllib.error
import urllib.request
from urllib.parse import unquote, urlsplit

TIMEOUT_S = 30.0
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}


class WebError(RuntimeError):
    """An address could not be read.

    :ivar passing: whether the same request may succeed a moment later.
    """

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


def without_credentials(address: str) -> str:
    """Return the address without ``user:password@``, fit to be shown."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def open_address(address: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Send a GET request and return the open response; the environment's proxies and certificates apply.

    :param address: http or https; ``user:password@`` is sent as basic authentication, and only to that host.
    :raises WebError: no connection, no answer, or an answer other than success.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        raise WebError(f"only http and https addresses can be fetched, not {parts.scheme!r}")
    request = urllib.request.Request(without_credentials(address), headers={"User-Agent": "medsam-slicer", **headers})
    credentials = parts.netloc.rpartition("@")[0]
    if credentials:
        token = base64.b64encode(unquote(credentials).encode()).decode("ascii")
        request.add_unredirected_header("Authorization", f"Basic {token}")
    try:
        # Not `urlopen`, which keeps to the proxies of its first call in the process.
        response: http.client.HTTPResponse = urllib.request.build_opener().open(request, timeout=TIMEOUT_S)
    except (OSError, http.client.HTTPException, ValueError) as error:
        failure, proxy = web_error(error), _proxy_of(parts.scheme, parts.hostname or "")
        if proxy:
            failure = WebError(f"{failure}, through the proxy {without_credentials(proxy)}", passing=failure.passing)
        raise failure from error
    return response


def _proxy_of(scheme: str, host: str) -> str:
    """Return the address of the proxy that urllib asks for a host; empty if none."""
    return "" if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme, "")


def web_error(error: Exception) -> WebError:
    """Put a failure of urllib, http.client or a socket into words, and say whether a second try makes sense."""
    if isinstance(error, urllib.error.HTTPError):
        with error:
            return WebError(f"the server answers {error.code} {error.reason}", passing=error.code in _PASSING_STATUS)
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return web_error(error.reason)
    if isinstance(error, TimeoutError):
        return WebError(f"no answer within {TIMEOUT_S:g} s", passing=True)
    if isinstance(error, ssl.SSLCertVerificationError):
        return WebError(f"{error.verify_message} (behind a proxy, set SSL_CERT_FILE to the certificate it uses)")
    if isinstance(error, socket.gaierror):
        return WebError(f"the host is not found ({error.strerror})")
    if isinstance(error, ConnectionRefusedError):
        return WebError("the host refuses the connection")
    passing = isinstance(error, ConnectionError | ssl.SSLError | http.client.HTTPException)
    return WebError(f"the connection fails ({error or type(error).__name__})", passing=passing)
