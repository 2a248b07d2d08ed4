"""Read HTTP answers with suspicion, and put what went wrong into words."""

from __future__ import annotations

import re
import socket
import time
import zlib
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vlwm.core.text import safe_text

if TYPE_CHECKING:
    import requests

_BLOCK = 1 << 18
_LONGEST_NUMBER = 18
_SETTLED_S = 60.0
"""a Last-Modified this much older than the answer names one version (RFC 9110, 8.8.2.2)"""


class Again(Exception):
    """This try failed in a way that another may not.

    Attributes:
        pause_s: the pause that the server asks for.
        unresolved: the host's name is not found; more tries hardly help.
    """

    def __init__(
        self, reason: str, pause_s: float | None = None, *, unresolved: bool = False
    ) -> None:
        super().__init__(reason)
        self.pause_s = pause_s
        self.unresolved = unresolved


def whole_number(text: str) -> int | None:
    """Return ASCII digits as a number; None for anything else, and for absurd lengths."""
    plain = text.strip()
    right = plain.isascii() and plain.isdigit() and len(plain) <= _LONGEST_NUMBER
    return int(plain) if right else None


def length(response: requests.Response) -> int | None:
    """Return the bytes of the body; None where the answer does not state it, or is chunked."""
    if response.headers.get("Transfer-Encoding"):
        return None
    return whole_number(response.headers.get("Content-Length", ""))


def says_where_it_ends(response: requests.Response) -> bool:
    """Return whether a truncated body can be distinguished from a complete one."""
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    return chunked or length(response) is not None


def content_range(response: requests.Response) -> tuple[int | None, int | None, int | None]:
    """Return first and last byte, and the total, of a part of a file; None where missing."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes\s+(?:(\d+)-(\d+)|\*)/(\d+|\*)", text.strip(), re.ASCII)
    if match is None:
        return None, None, None
    first, last, total = (whole_number(word or "") for word in match.groups())
    return first, last, total


def encoding(response: requests.Response) -> str:
    """Return the content encoding; empty for none."""
    named = response.headers.get("Content-Encoding", "").strip().lower()
    return "" if named == "identity" else named


def settled_date(response: requests.Response) -> str | None:
    """Return Last-Modified where it names one version, old enough for a clock of seconds."""
    text = response.headers.get("Last-Modified")
    if not text:
        return None
    try:
        changed = parsedate_to_datetime(text).timestamp()
        sent = parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return text if sent - changed >= _SETTLED_S else None


def retry_after(response: requests.Response) -> float | None:
    """Return the pause in seconds that a server asks for."""
    text = response.headers.get("Retry-After", "")
    number = whole_number(text)
    if number is not None:
        return float(number)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def blocks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it arrives: what came before a connection broke is kept.

    Raises:
        Again: the connection stalled or broke, or a compressed body has no end.
    """
    import urllib3

    packed = encoding(response)
    if packed not in ("", "gzip", "x-gzip", "deflate"):
        raise Again(f"the server compresses with {safe_text(packed, 40)}, which was not asked for")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed else None
    try:
        while block := response.raw.read1(_BLOCK, decode_content=False):
            while unpacker is not None and block:
                yield unpacker.decompress(block, _BLOCK)
                block = unpacker.unconsumed_tail
            if unpacker is None:
                yield block
    except urllib3.exceptions.ReadTimeoutError as error:
        raise Again("the server stalled") from error
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise Again("the connection broke") from error
    except zlib.error as error:
        raise Again("the compressed answer is damaged") from error
    if unpacker is not None and not unpacker.eof:
        raise Again("the compressed answer has no end")


def address(url: str) -> str:
    """Return scheme, host and path: a query may hold a signature and is never shown."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
    except ValueError:
        return safe_text(url.split("?")[0], 120)
    return safe_text(f"{parts.scheme}://{host}{port}{parts.path}")


def host_of(url: str) -> str:
    """Return the host of an address, safe to print; empty where there is none."""
    try:
        return safe_text(urlsplit(url).hostname or "", 80)
    except ValueError:
        return ""


def without_secrets(text: str) -> str:
    """Return a sentence of a library with the logins and queries taken out of its addresses."""
    return re.sub(r"(\w+://)(?:[^\s/@]*@)?([^\s?]*)(?:\?\S*)?", r"\1\2", text)


def is_unresolved(error: BaseException | None) -> bool:
    """Return whether a host's name was not found, anywhere in the chain of causes."""
    seen = 0
    while error is not None and seen < 20:
        named = type(error).__name__ == "NameResolutionError"
        if named or isinstance(error, socket.gaierror):
            return True
        inner = error.args[0] if error.args and isinstance(error.args[0], BaseException) else None
        inner = inner or getattr(error, "reason", None)
        error = inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__
        seen += 1
    return False


def cause(error: BaseException) -> str:
    """Return why a request failed, in words."""
    if is_unresolved(error):
        return "its host's name is not found (no network, or a wrong address)"
    if "refused" in str(error):
        return "the connection is refused"
    names = {
        "ConnectTimeout": "no connection in time",
        "ReadTimeout": "the server stalled",
        "ConnectionError": "the connection failed or broke",
        "ChunkedEncodingError": "the connection broke",
        "ContentDecodingError": "the compressed answer is damaged",
        "SSLError": "the server's certificate is not accepted",
        "ProxyError": "the proxy does not answer",
        "TooManyRedirects": "it is redirected in a loop",
    }
    return names.get(type(error).__name__, type(error).__name__)


def stated_length(url: str, timeout_s: float) -> int | None:
    """Return the length that a server states for a file, or None."""
    import requests

    try:
        headers = {"Accept-Encoding": "identity", "User-Agent": "vlwm"}
        answer = requests.head(url, headers=headers, timeout=timeout_s, allow_redirects=True)
    except (requests.exceptions.RequestException, ValueError):
        return None
    return length(answer) if answer.status_code == 200 and not encoding(answer) else None
