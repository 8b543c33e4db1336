"""Asking a server which models it serves, for the examination of the environment."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recbole_hnlm.llm.http import HttpClient, NoAnswerError, parse_json, read_key
from recbole_hnlm.llm.statuses import Verdict, meaning, verdict
from recbole_hnlm.utils.addresses import one_line, parse_addresses
from recbole_hnlm.utils.errors import HNLMError

if TYPE_CHECKING:
    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.utils.addresses import ServerAddress

__all__ = ["ServerReport", "examine_servers"]

_SECONDS = 5.0
_NAME_CHARS, _MOST_NAMES = 200, 5


@dataclass(frozen=True)
class ServerReport:
    """What was found at an address.

    Attributes:
        found: one line for the user.
        fix: how to make it work; None where a run can use the server.
    """

    found: str
    fix: str | None = None


def examine_servers(settings: HNLMSettings) -> list[ServerReport]:
    """Ask every server of ``llm_base_url`` for its models, with the client of the LLM.

    Raises:
        HNLMError: an address or the key cannot be used.
    """
    addresses = parse_addresses(settings.llm_base_url or "", settings.llm_api_key_env)
    key = read_key(settings.llm_api_key_env)

    async def examine_all() -> list[ServerReport]:
        return list(await asyncio.gather(*(_examine(address, key, settings) for address in addresses)))

    return asyncio.run(examine_all())


async def _examine(address: ServerAddress, key: str, settings: HNLMSettings) -> ServerReport:
    client = HttpClient(address, key, _SECONDS, limit="")
    state = f"{settings.llm_api_key_env} is {'set' if key else 'not set'}"
    try:
        answer = await client.request("GET", "/models")
        if verdict(answer) is not Verdict.DONE:
            line = meaning(answer, client, settings.llm_api_key_env, bool(key), who=address.shown)
            fix = f"export {settings.llm_api_key_env}=..." if answer.status in {401, 403} else "check --llm_base_url"
            return ServerReport(f"{line}; {state}", fix)
        served = _names(parse_json(answer.body))
    except NoAnswerError as fault:
        return ServerReport(f"{address.shown} does not answer as a server should ({fault}); {state}", "start the server")
    except HNLMError as error:
        return ServerReport(str(error), "correct what is named above")
    finally:
        await client.close()
    if served and settings.llm_model not in served:
        shown = [one_line(name, _NAME_CHARS) for name in served[:_MOST_NAMES]]
        more = f" and {len(served) - _MOST_NAMES:,} more" if len(served) > _MOST_NAMES else ""
        return ServerReport(
            f"{address.shown} serves {', '.join(shown)}{more}, not {one_line(settings.llm_model, _NAME_CHARS)}",
            f"--llm_model={shown[0]}",
        )
    return ServerReport(f"{one_line(settings.llm_model, _NAME_CHARS)} at {address.shown}; {state}")


def _names(content: object) -> list[str]:
    models = content.get("data") if isinstance(content, dict) else None
    names = [model.get("id") if isinstance(model, dict) else None for model in models] if isinstance(models, list) else [None]
    if not all(isinstance(name, str) for name in names):
        raise NoAnswerError("its answer is no list of models")
    return [str(name) for name in names]
