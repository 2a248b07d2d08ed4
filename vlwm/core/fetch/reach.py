"""Ask quickly whether the hosts of a download can be reached, before a patient transfer begins."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from vlwm.core.errors import DataError
from vlwm.core.text import safe_text

_HUB = "https://huggingface.co"


def refuse_without_network(
    urls: Iterable[str], say: Callable[[str], None], *, within_s: float = 4.0
) -> None:
    """Look whether any host of some addresses answers; a proxy is asked in its place.

    Args:
        say: gets a sentence where a host does not answer, and others or the time are left.
        within_s: seconds after which a host that has not answered is named.

    Raises:
        DataError: no host can be reached; each is named with its reason.
    """
    places = sorted({place for url in urls if (place := _place(url)) is not None})
    found: dict[tuple[str, int], str | None] = {}
    for place in places:
        threading.Thread(target=_ask, args=(place, found), daemon=True).start()
    until = time.monotonic() + within_s
    while len(found) < len(places) and time.monotonic() < until:
        time.sleep(0.02)
    dead = {place[0]: reason for place, reason in dict(found).items() if reason is not None}
    silent = [place[0] for place in places if place not in found]
    words = ", ".join(f"{host} ({reason})" for host, reason in dead.items())
    if dead and len(dead) == len(places):
        raise DataError(
            f"cannot reach {words}",
            remedy="check this machine's network (vlwm setup does), then run the same command "
            "again; behind a proxy set HTTPS_PROXY",
        )
    if dead:
        say(f"cannot reach {words}")
    if silent:
        say(
            f"no answer from {', '.join(silent)} for {within_s:.0f} s; still trying (Ctrl-C stops, "
            "what has arrived is kept)"
        )


def _place(url: str) -> tuple[str, int] | None:
    """Return host and port that are asked for an address; None where none is."""
    if url.startswith("hf://"):
        url = os.environ.get("HF_ENDPOINT") or _HUB
    if not url.startswith(("http://", "https://")):
        return None
    import requests

    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url, no_proxy=None))
    parts = urlsplit(proxy or url)
    if not parts.hostname:
        return None
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _ask(place: tuple[str, int], found: dict[tuple[str, int], str | None]) -> None:
    try:
        socket.create_connection(place, timeout=10.0).close()
    except socket.gaierror:
        found[place] = "name not found"
    except (OSError, UnicodeError) as error:
        found[place] = safe_text(getattr(error, "strerror", None) or error, 80)
    else:
        found[place] = None
