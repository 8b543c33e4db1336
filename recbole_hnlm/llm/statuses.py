"""What a server's status codes mean for a run: try again, leave this prompt out, or stop; and what the user can do."""

from __future__ import annotations

import http
import json
from email.utils import parsedate_to_datetime
from enum import Enum
from time import time
from typing import TYPE_CHECKING, Any

from recbole_hnlm.utils.addresses import redact

if TYPE_CHECKING:
    from recbole_hnlm.llm.http import Answer, HttpClient

__all__ = ["Verdict", "meaning", "named_parameter", "reason_of", "retry_after", "verdict"]

_LONGEST_PAUSE = 60.0  # seconds that a server's Retry-After may ask for


class Verdict(Enum):
    """What follows from an answer's status."""

    DONE = "done"
    AGAIN = "again"
    """A passing fault: ask again later."""
    PROMPT = "prompt"
    """The server refuses this request: its parameters, or its prompt."""
    STOP = "stop"
    """No request can succeed."""


_AGAIN = frozenset({408, 409, 425, 429})
_PROMPT = frozenset({400, 413, 414, 422})
_LASTING = frozenset({501, 505, 506, 508, 510, 511})

_MEANINGS = {
    400: "refuses the request",
    402: "wants to be paid first: check the account's credit",
    404: "has nothing at this path, or does not know the model: check llm_base_url, which usually ends in /v1, and llm_model",
    405: "does not take this kind of request at this path: check llm_base_url, which usually ends in /v1",
    406: "cannot answer in JSON: check that llm_base_url is an OpenAI-compatible server",
    407: "is behind a proxy that wants a login: put user and password into the proxy's variable",
    408: "waited too long for the request",
    409: "is busy with a conflicting request",
    410: "no longer has this model or path: choose another llm_model",
    413: "finds the request too large: lower profile_history_length, description_max_chars or review_max_chars",
    414: "finds the address too long: check llm_base_url",
    415: "does not take JSON: check that llm_base_url is an OpenAI-compatible server",
    418: "refuses on principle: check llm_base_url",
    421: "is not the one for this host: check llm_base_url",
    422: "cannot work on the request",
    425: "does not want the request yet",
    426: "asks for another protocol: check llm_base_url, perhaps https instead of http",
    428: "asks for conditions that are never sent: check llm_base_url",
    429: "gets too many requests or tokens: lower llm_concurrency",
    431: "finds the headers too large: check the key",
    451: "may not answer for legal reasons: choose another server",
    500: "has an internal fault: see its log",
    501: "does not offer this: check llm_base_url, which usually ends in /v1",
    502: "is a gateway that gets no proper answer from the server behind it",
    503: "is overloaded or still loading its model",
    504: "is a gateway whose server behind it is too slow",
    505: "does not speak HTTP/1.1: check llm_base_url",
    507: "has no room left",
    511: "is a network login page: log in to the network first",
}


def verdict(answer: Answer) -> Verdict:
    """Return what follows from an answer's status."""
    status = answer.status
    if 200 <= status < 300:
        return Verdict.DONE
    if status == 429 and "insufficient_quota" in _reason_and_code(answer.body)[1]:
        return Verdict.STOP  # waiting does not fill an account
    if status in _AGAIN or (500 <= status < 600 and status not in _LASTING):
        return Verdict.AGAIN
    return Verdict.PROMPT if status in _PROMPT else Verdict.STOP


def meaning(answer: Answer, client: HttpClient, key_variable: str, has_key: bool, who: str = "") -> str:
    """Say in one line what a status other than 2xx means, in the server's words too, and what can be done.

    Args:
        answer: the answer.
        client: the server's client, whose key is kept out of the line.
        key_variable: name of the environment variable of the key.
        has_key: whether that variable is set.
        who: what the line calls the server; empty names its address.
    """
    status, reason = answer.status, reason_of(answer, client)
    try:
        name = f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        name = str(status)
    where = who or f"the server at {client.address.shown}"
    if 300 <= status < 400:
        place = client.clean(redact(answer.headers.get("location", ""))) or "an address that it does not give"
        return f"{where} redirects (status {name}) to {place}, which is not followed: set llm_base_url to the right address"
    status_shown = f"(status {name}{f': {reason}' if reason else ''})"
    if status in {401, 403}:
        what = f"refuses the key in {key_variable}" if has_key else f"asks for a key, and {key_variable} is not set"
        also = "" if status == 401 else ", or does not allow it this model"
        return f"{where} {what}{also} {status_shown}; set that environment variable to a valid key"
    fallback = {4: "refuses the request", 5: "has a fault"}.get(status // 100, "gives a status that is not known")
    through = f", through the proxy {client.proxy}" if client.proxy and status in {407, 502, 503, 504} else ""
    return f"{where} {_MEANINGS.get(status, fallback)} {status_shown}{through}"


def reason_of(answer: Answer, client: HttpClient) -> str:
    """Return the server's own words from an error's body, as one short line; empty where there are none."""
    return client.clean(_reason_and_code(answer.body)[0])


def named_parameter(answer: Answer) -> str:
    """Return the name of the parameter that an error's body gives in a field of its own; empty where there is none."""
    error = _error_of(answer.body)
    return str(error.get("param") or "") if isinstance(error, dict) else ""


def _error_of(body: bytes) -> Any:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return (content.get("error") or content) if isinstance(content, dict) else content


def _reason_and_code(body: bytes) -> tuple[str, str]:
    error = _error_of(body)
    if error is None:
        text = body[: 2**16].decode("utf-8", "replace").strip()
        return ("an HTML page" if text[:1] == "<" else text), ""
    if not isinstance(error, dict):
        return str(error), ""
    code = f"{error.get('code')} {error.get('type')}"
    text = error.get("message") or error.get("detail") or error.get("error") or error.get("msg") or ""
    if isinstance(text, list):  # FastAPI's: one entry per field
        text = "; ".join(_field(entry) for entry in text[:5])
    return str(text), code


def _field(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    place = entry.get("loc")
    name = ".".join(map(str, place)) if isinstance(place, list) else ""
    return f"{name}: {entry.get('msg', '')}"


def retry_after(answer: Answer) -> float | None:
    """Return the seconds that the server asks to wait, a minute at most; None where it asks for none."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = answer.headers.get(name, "")
        try:
            seconds = float(text) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(text).timestamp() - time()
            except (ValueError, TypeError, OverflowError):
                continue
        if seconds >= 0:  # false for NaN too
            return min(seconds, _LONGEST_PAUSE)
    return None
