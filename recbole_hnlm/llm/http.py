"""The HTTP client for servers: one request, its whole answer bounded in time and bytes, and every fault as one line.

Redirects are not followed, since they would take the key to another host. Servers on this machine are called without a proxy;
for others the proxy of the environment is chosen here, so that its faults name it.
"""

from __future__ import annotations

import json
import os
import urllib.request
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from recbole_hnlm import __version__
from recbole_hnlm.utils.addresses import one_line, redact
from recbole_hnlm.utils.errors import BackendError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import httpx2

    from recbole_hnlm.utils.addresses import ServerAddress

__all__ = ["MOST_BYTES", "Answer", "HttpClient", "NoAnswerError", "parse_json", "read_key"]

MOST_BYTES = 8 * 2**20
"""Most bytes of an answer's body, also after unpacking: a reply has kilobytes, a service's list of models a megabyte."""

_CONNECT_SECONDS = 10.0
_ZLIB_OR_GZIP = 47  # zlib's window bits for "either form, by its header"


class NoAnswerError(Exception):
    """A request got no usable answer; another attempt may.

    Args:
        reason: why, for the user.
        retry_after: seconds that the server asks to wait, if it does.
        again: False where asking the same thing again is pointless.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, again: bool = True) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.again = again


@dataclass(frozen=True)
class Answer:
    """The answer to a request.

    Attributes:
        status: its status code.
        headers: its headers; look-ups ignore case.
        body: its body, unpacked.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def read_key(variable: str) -> str:
    """Return the server's key from an environment variable; empty where it is not set.

    Raises:
        BackendError: it holds something that no header can carry; the message shows nothing of it.
    """
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable():
        what = "a line break or another control character" if key.isascii() else "a character outside ASCII"
        raise BackendError(
            f"the key in the environment variable {variable} holds {what}, which no key has: set it again, with the key alone"
        )
    return key


def parse_json(body: bytes) -> Any:
    """Read a body.

    Raises:
        NoAnswerError: it is no JSON, or nested too deep.
    """
    try:
        return json.loads(body)
    except RecursionError:
        raise NoAnswerError("unreadable answer: JSON nested too deep", again=False) from None
    except ValueError as error:
        kind = "no JSON" if isinstance(error, json.JSONDecodeError) else "no text"
        raise NoAnswerError(f"unreadable answer: {kind}", again=False) from None


@dataclass(frozen=True)
class _Proxy:
    url: str
    variable: str

    @property
    def shown(self) -> str:
        return f"{redact(self.url)} ({self.variable})"


def _proxy_of(address: ServerAddress) -> _Proxy | None:
    """Return the environment's proxy for an address; none for this machine and for what ``no_proxy`` names."""
    proxies = urllib.request.getproxies_environment()
    netloc = address.host if address.port is None else f"{address.host}:{address.port}"
    # The look-up is typed without the second argument, which keeps it from asking macOS or Windows.
    if address.is_loopback or urllib.request.proxy_bypass_environment(netloc, proxies):  # type: ignore[attr-defined]
        return None
    for scheme in (address.scheme, "all"):
        if url := proxies.get(scheme):
            variable = next((name for name in os.environ if name.lower() == f"{scheme}_proxy"), f"{scheme}_proxy")
            return _Proxy(url if "://" in url else f"http://{url}", variable)
    return None


class HttpClient:
    """Sends requests to one server. Nothing is opened before the first one.

    Args:
        address: the server.
        key: sent as bearer token; empty sends none.
        seconds: most seconds of a whole answer, from connecting to the last byte.
        connections: most connections at once.
        limit: what the message of an answer that takes too long puts before the seconds.
    """

    def __init__(
        self, address: ServerAddress, key: str, seconds: float, connections: int = 1, limit: str = "llm_timeout="
    ) -> None:
        self.address = address
        self._key = key
        self._seconds = seconds
        self._connections = connections
        self._limit = limit
        self._proxy = _proxy_of(address)
        self._client: httpx2.AsyncClient | None = None

    async def request(self, method: str, path: str, body: Any = None) -> Answer:
        """Send a request and read its answer, whatever its status.

        Args:
            method: such as ``POST``.
            path: below the server's address, such as ``/chat/completions``.
            body: sent as JSON; None sends none.

        Raises:
            NoAnswerError: nothing usable came: no connection, a broken answer, too slow, or too long.
            BackendError: the address or the proxy cannot be used at all.
            MissingDependencyError: the proxy needs a package that is not installed.
        """
        import anyio  # noqa: PLC0415 - as below
        import httpx2  # noqa: PLC0415 - a noticeable time to import

        client = self._open()
        content = None if body is None else json.dumps(body, ensure_ascii=True).encode()
        try:
            # The client's own limits are for one read each; a server that sends a byte now and then would pass them for ever.
            with anyio.fail_after(self._seconds):
                async with client.stream(method, f"{self.address.url}{path}", content=content) as answer:
                    raw = await self._bounded(answer.aiter_raw())
                    headers = {name.lower(): value for name, value in answer.headers.items()}
                    return Answer(answer.status_code, headers, _unpacked(raw, headers.get("content-encoding", "")))
        except (TimeoutError, httpx2.TimeoutException):
            raise NoAnswerError(f"no whole answer within {self._limit}{self._seconds:g} seconds{self._through}") from None
        except httpx2.ProxyError as error:
            raise NoAnswerError(f"the proxy {self._proxy_shown} refuses the connection: {self.clean(error)}") from None
        except (httpx2.RequestError, OSError) as error:
            raise NoAnswerError(f"{type(error).__name__}: {self.clean(error) or 'no reason given'}{self._through}") from None
        except (httpx2.InvalidURL, ValueError) as error:
            raise BackendError(f"the address {self.address.shown} cannot be called: {self.clean(error)}") from None

    def clean(self, text: object) -> str:
        """Write a stranger's text for a message: one short line without the key, which a server may echo."""
        return one_line(redact(str(text)[: 2**16], [self._key] if self._key else []))

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @property
    def _proxy_shown(self) -> str:
        return self._proxy.shown if self._proxy else "of the environment"

    @property
    def _through(self) -> str:
        return f", through the proxy {self._proxy.shown}" if self._proxy else ""

    @property
    def proxy(self) -> str | None:
        """The proxy that is used, with the variable that names it, as it may be shown."""
        return self._proxy.shown if self._proxy else None

    def _open(self) -> httpx2.AsyncClient:
        import httpx2  # noqa: PLC0415 - see above

        if self._client is None:
            headers = {
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "User-Agent": f"recbole-hnlm/{__version__}",
            }
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            try:
                if self._proxy:
                    _ = urlsplit(self._proxy.url).port  # a ValueError where it is no number between 0 and 65535
                self._client = httpx2.AsyncClient(
                    headers=headers,
                    timeout=httpx2.Timeout(self._seconds, connect=min(self._seconds, _CONNECT_SECONDS)),
                    limits=httpx2.Limits(max_connections=self._connections),
                    # The proxy is given here; the environment is then read for certificates alone.
                    transport=httpx2.AsyncHTTPTransport(
                        proxy=httpx2.Proxy(self._proxy.url) if self._proxy else None,
                        limits=httpx2.Limits(max_connections=self._connections),
                    ),
                    follow_redirects=False,
                )
            except ImportError:
                raise MissingDependencyError(
                    f"the proxy {self._proxy_shown} is a SOCKS proxy, which needs a package: pip install socksio, "
                    f"or name {self.address.host} in NO_PROXY"
                ) from None
            except (ValueError, httpx2.InvalidURL) as error:
                raise BackendError(
                    f"the proxy {self._proxy_shown} cannot be used ({self.clean(error)}): expected an address such as "
                    "http://proxy:3128"
                ) from None
        return self._client

    @staticmethod
    async def _bounded(chunks: AsyncIterator[bytes]) -> bytes:
        parts, size = [], 0
        async for chunk in chunks:
            parts.append(chunk)
            size += len(chunk)
            if size > MOST_BYTES:
                raise NoAnswerError(f"an answer of more than {MOST_BYTES // 2**20} MiB", again=False)
        return b"".join(parts)


def _unpacked(raw: bytes, encoding: str) -> bytes:
    """Unpack a body; packed ones are not asked for, but some servers send them all the same."""
    if encoding.strip().lower() in {"", "identity"} or not raw:
        return raw
    if encoding.strip().lower() not in {"gzip", "x-gzip", "deflate"}:
        raise NoAnswerError(f"unreadable answer: packed as {one_line(encoding, 40)}, which was not asked for", again=False)
    unpacker = zlib.decompressobj(_ZLIB_OR_GZIP)
    try:
        body = unpacker.decompress(raw, MOST_BYTES + 1)
    except zlib.error:
        raise NoAnswerError("unreadable answer: damaged gzip", again=False) from None
    if len(body) > MOST_BYTES:
        raise NoAnswerError(f"an answer of more than {MOST_BYTES // 2**20} MiB", again=False)
    return body
