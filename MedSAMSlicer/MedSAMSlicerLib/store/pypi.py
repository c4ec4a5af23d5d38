"""The Python package index: where a file of a release lies.

A file's address holds a hash that cannot be guessed, so it is looked up in the project's page of the index (the simple
repository API, https://packaging.python.org/en/latest/specifications/simple-repository-api/).
"""

from __future__ import annotations

import json
import os
from html.parser import HTMLParser
from http.client import HTTPException
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from MedSAMSlicerLib.store.catalog import PypiFile
from MedSAMSlicerLib.store.web import WebError, open_address, web_error, without_credentials

_DEFAULT_INDEX = "https://pypi.org/simple"
_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"


def file_address(file: PypiFile) -> str:
    """Return the address of a release's file, asking the index that pip uses too (PIP_INDEX_URL, else pypi.org).

    :raises WebError: the index cannot be read or does not list the file.
    """
    index = os.environ.get("PIP_INDEX_URL") or _DEFAULT_INDEX
    page = f"{index.rstrip('/')}/{file.project}/"
    try:
        with open_address(page, {"Accept": _ACCEPT}) as response:
            is_json = "json" in response.headers.get("Content-Type", "")
            content = response.read()
    except (OSError, HTTPException) as error:
        raise web_error(error) from error
    for link in _json_links(content) if is_json else _html_links(content):
        address = urldefrag(urljoin(page, link)).url
        if unquote(urlsplit(address).path).rpartition("/")[2] == file.filename:
            return _with_credentials_of(page, address)
    raise WebError(f"{without_credentials(page)} does not list the file; if PIP_INDEX_URL is set, unset it")


def _json_links(page: bytes) -> list[str]:
    """Return the file links of a project page in JSON (PEP 691)."""
    try:
        return [file["url"] for file in json.loads(page)["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise WebError("the answer is not a page of a package index; if PIP_INDEX_URL is set, unset it") from error


def _html_links(page: bytes) -> list[str]:
    """Return the file links of a project page in HTML (PEP 503)."""
    parser = _LinkParser()
    parser.feed(page.decode("utf-8", errors="replace"))
    return parser.links


class _LinkParser(HTMLParser):
    """Collect the targets of the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a link's target."""
        if tag == "a":
            self.links.extend(value for name, value in attrs if name == "href" and value)


def _with_credentials_of(page: str, address: str) -> str:
    """Give an address the index's credentials when both are on one host, as pip does for private mirrors."""
    credentials, _, host = urlsplit(page).netloc.rpartition("@")
    parts = urlsplit(address)
    if credentials and parts.netloc == host:
        return parts._replace(netloc=f"{credentials}@{host}").geturl()
    return address
