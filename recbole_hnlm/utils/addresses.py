"""Addresses of servers: what may be one, what of it may be shown, and which lie on this machine.

Passwords and keys get into addresses as user information, query, fragment, or as a segment of the path. :func:`redact` is the
one place that decides what of an address a log, an error, a result or an artefact may hold.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from recbole_hnlm.utils.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ServerAddress", "is_loopback", "looks_secret", "one_line", "parse_addresses", "redact"]

_EXAMPLE = "an address such as http://localhost:8000/v1"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_NEXT_ADDRESS = re.compile(r"\s*,\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9.])?")
_KEY_PREFIX = re.compile(r"(?i)(sk|pk|rk|hf|gsk|ghp|xox[a-z]|api|key|tok|token|secret|bearer)[-_:=.].{6,}|eyJ.{10,}")
_UUID = re.compile(r"(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RANDOM_CHARS, _WORD_CHARS = 16, 32
_SHOWN_CHARS = 80


def looks_secret(word: str) -> bool:
    """Whether a word is written like a key: a known prefix, a UUID, or a long run of letters and digits without a pause.

    Names such as ``Meta-Llama-3-8B-Instruct`` have pauses; a run of 16 characters with a digit, or of 32 without, has none.
    """
    if _KEY_PREFIX.fullmatch(word) or _UUID.search(word):
        return True
    runs = re.findall(r"[A-Za-z0-9]+", word)
    return any(len(run) >= (_RANDOM_CHARS if re.search(r"\d", run) else _WORD_CHARS) for run in runs)


def one_line(text: str, limit: int = 200) -> str:
    """Write a stranger's text for a message: one line, without characters that a terminal obeys, cut at ``limit``."""
    # Cut first: the text may be megabytes. Formatting characters (escapes, direction marks) are not printable.
    start = "".join(char if char.isprintable() else " " for char in text[: 4 * limit])
    line = " ".join(start.split())
    return line if len(line) <= limit and len(text) <= 4 * limit else f"{line[:limit]} ..."


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Blank out what may be a password or a key in the addresses inside a text, and every one of ``secrets``.

    Of an address remain scheme, host, port, the names of its query's parameters and the path, except segments that look like
    a key.
    """
    for secret in secrets:
        text = text.replace(secret, "***")
    return _ADDRESS.sub(lambda found: ",".join(map(_redacted, _NEXT_ADDRESS.split(found[0]))), text)


def _redacted(address: str) -> str:
    """Redact one address, which need not be well formed."""
    scheme, mark, rest = address.partition("://") if "://" in address else ("", "", address)
    head = re.split(r"[?#]", rest, maxsplit=1)[0]
    query, hash_mark, _ = rest[len(head) :].partition("#")
    if "@" in query or (hash_mark and "@" in rest.partition("#")[2]):
        # A password may hold any character, so that what stands before the last "@" may all belong to it.
        return f"{scheme}{mark}***"
    if "@" in head:
        head = f"***@{head.rpartition('@')[2]}"
    host_place = 0 if mark else -1
    head = "/".join("***" if place != host_place and looks_secret(part) else part for place, part in enumerate(head.split("/")))
    names = [part.partition("=") for part in query[1:].split("&")] if query else []
    shown = "&".join(f"{name}=***" if equals and not looks_secret(name) else "***" for name, equals, _ in names)
    return f"{scheme}{mark}{head}{f'?{shown}' if shown else ''}{'#***' if hash_mark else ''}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, in any spelling: localhost, 127.0.0.0/8, ``127.1``, ``::1``, ``::ffff:127.0.0.1``.

    The unspecified addresses ``0.0.0.0`` and ``::`` lead to this machine too.
    """
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(name))
        except (OSError, ValueError):
            return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


@dataclass(frozen=True)
class ServerAddress:
    """The address of a server.

    Attributes:
        url: as it is called, without a slash at its end.
        shown: as it may be shown and stored.
        scheme: ``http`` or ``https``.
        host: name or number, without brackets.
        port: None where the scheme's own is meant.
    """

    url: str
    shown: str
    scheme: str
    host: str
    port: int | None

    @property
    def is_loopback(self) -> bool:
        """Whether it lies on this machine."""
        return is_loopback(self.host)


def parse_addresses(value: str, key_variable: str) -> tuple[ServerAddress, ...]:
    """Read ``llm_base_url``: one address, or several with commas between them.

    Args:
        value: the key's value.
        key_variable: name of the environment variable into which a server's key belongs, for the messages.

    Raises:
        ConfigError: one of them cannot be called, or has a place in it where a password or key may be; the message shows none.
    """
    parts = [part for part in _NEXT_ADDRESS.split(value.strip()) if part]
    if not parts:
        raise ConfigError(f"llm_base_url is empty, expected {_EXAMPLE}")
    return tuple({address.url: address for address in (_parsed(part, key_variable) for part in parts)}.values())


def _parsed(text: str, key_variable: str) -> ServerAddress:
    def refused(what: str) -> ConfigError:
        return ConfigError(f"llm_base_url {one_line(ascii(_redacted(text)), _SHOWN_CHARS)} {what}")

    if "@" in text.partition("://")[2].split("/")[0] or ("@" in text and "://" not in text):
        raise refused(
            "holds a user or a password: leave it out of the address and put the server's key into the environment "
            f"variable {key_variable} (llm_api_key_env)"
        )
    if "?" in text or "#" in text:
        raise refused(
            "holds a query or a fragment: expected an address without, such as http://localhost:8000/v1; a key belongs into "
            f"the environment variable {key_variable} (llm_api_key_env)"
        )
    # Checked before urlsplit, which drops line breaks and tabs.
    if not text.isprintable() or " " in text or "\\" in text:
        raise refused(f"holds a space, a backslash or a control character: expected {_EXAMPLE}, several with commas between")
    try:
        address = urlsplit(text)
        port = address.port
        if port == 0:
            raise ValueError("Port is 0")
        if "[" in address.netloc:
            ipaddress.IPv6Address((address.hostname or "").partition("%")[0])  # Python 3.10 splits whatever stands in brackets
    except ValueError as error:
        what = "the port is no number between 1 and 65535" if "ort" in str(error) else "its host cannot be read"
        raise refused(f"is not {_EXAMPLE}: {what}") from None
    host = address.hostname or ""
    if address.scheme not in {"http", "https"} or not _is_host(host):
        raise refused(f"is not {_EXAMPLE}")
    return ServerAddress(text.rstrip("/"), _redacted(text).rstrip("/"), address.scheme, host, port)


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True
    try:
        return _HOST.fullmatch(host.encode("idna").decode()) is not None
    except UnicodeError:
        return False
