"""Spreading prompts over servers that serve the same model: which one gets a prompt, and what follows from its faults.

A server that is new, or that stopped answering, gets one prompt at a time, as a trial, until it answers; the others get theirs
meanwhile. A prompt that fails goes to another server at once, and waits only when all have failed it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Any

from recbole_hnlm.llm.http import NoAnswerError
from recbole_hnlm.llm.protocol import AnswersCutShortError, TokenUsage
from recbole_hnlm.utils.errors import BackendError, HNLMError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recbole_hnlm.llm.protocol import Decoding, Prompt
    from recbole_hnlm.llm.replica import Replica

__all__ = ["Replicas"]

_LOGGER = logging.getLogger("recbole_hnlm")
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.5, 8.0
_GRACE_SECONDS = 5.0
_FAILURES_TO_LEAVE_OUT = 2  # attempts in a row, while another server answers


class Replicas:
    """Servers of one model.

    Args:
        replicas: one or more.
        concurrency: most prompts on their way at once, over all servers.
        retries: times a prompt is sent again after all servers have failed it.
    """

    def __init__(self, replicas: Sequence[Replica], concurrency: int, retries: int) -> None:
        self._replicas = list(replicas)
        self._concurrency = concurrency
        self._retries = retries
        self._given_up = 0
        self._sending: set[asyncio.Task[Any] | None] = set()
        self._stops = False
        self._changed = asyncio.Event()

    async def ask(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str | None]:
        """Ask prompts.

        Returns:
            One text per prompt, None where there is no answer to it.

        Raises:
            AnswersCutShortError: no server can answer any more, after some did.
            HNLMError: no server can answer.
        """
        answers: list[str | None] = [None] * len(prompts)
        slots = asyncio.Semaphore(self._concurrency)

        async def fill(place: int) -> None:
            async with slots:
                answers[place] = await self._answer(prompts[place], decoding)

        self._stops = False
        tasks = [asyncio.create_task(fill(place)) for place in range(len(prompts))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            error = next((task.exception() for task in tasks if task.done() and task.exception()), None)
            if error is None:
                return answers
            await self._stop(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        # Whatever stopped one prompt stops the others.
        if isinstance(error, BackendError) and any(answer is not None for answer in answers):
            raise AnswersCutShortError(str(error), answers)
        raise error

    async def _stop(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Send nothing more, and give what is on its way a moment to arrive: it is paid for."""
        self._stops = True
        for task in tasks:
            if task not in self._sending:
                task.cancel()
        if on_the_way := [task for task in tasks if not task.done()]:
            await asyncio.wait(on_the_way, timeout=_GRACE_SECONDS)

    @property
    def usage(self) -> TokenUsage:
        """Tokens of all servers, as far as they say."""
        figures = [replica.figures for replica in self._replicas]
        return sum((TokenUsage(each.prompt_tokens, each.completion_tokens, each.uncounted) for each in figures), TokenUsage())

    def log_figures(self) -> None:
        """Log what each server did."""
        for replica in self._replicas:
            if replica.figures.requests:
                _LOGGER.info("the server at %s: %s", replica.shown, replica.figures.describe())

    async def close(self) -> None:
        """Close the connections of all."""
        for replica in self._replicas:
            await replica.close()

    async def _answer(self, prompt: Prompt, decoding: Decoding) -> str | None:
        try:
            return await self._answer_by_any(prompt, decoding)
        finally:
            for replica in self._replicas:
                if replica.owner is asyncio.current_task():
                    replica.owner = None
            self._notify()

    async def _answer_by_any(self, prompt: Prompt, decoding: Decoding) -> str | None:
        failed: set[Replica] = set()  # those that failed this prompt since the last pause
        fault = NoAnswerError("no server could be asked")
        rounds = 0
        while True:
            if self._stops:
                return None
            replica = await self._pick(failed)
            if replica is None:
                rounds += 1
                if rounds > self._retries or not fault.again:
                    self._give_up(fault, rounds - 1)
                    return None
                await asyncio.sleep(_pause(rounds, fault.retry_after))
                failed.clear()
                continue
            try:
                answer = await self._attempt(replica, prompt, decoding)
            except NoAnswerError as error:
                fault = error
                failed.add(replica)
                continue
            except HNLMError as error:
                self._refused(replica, error)
                continue
            self._given_up = 0
            return answer

    async def _attempt(self, replica: Replica, prompt: Prompt, decoding: Decoding) -> str | None:
        task = asyncio.current_task()
        if not replica.is_ready:
            replica.owner = task
        replica.in_flight += 1
        self._sending.add(task)
        try:
            answer = await replica.answer(prompt, decoding)
        except NoAnswerError as error:
            self._failed(replica, str(error))
            raise
        else:
            if not replica.is_ready and replica.last_fault and len(self._replicas) > 1:
                _LOGGER.info("the server at %s answers again", replica.shown)
            replica.succeeded()
            return answer
        finally:
            replica.in_flight -= 1
            self._sending.discard(task)
            # Where no server answers, the same prompt tries again after its pause: others would only fail in between.
            if replica.owner is task and (replica.is_ready or any(each.is_ready for each in self._replicas)):
                replica.owner = None
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _pick(self, failed: set[Replica]) -> Replica | None:
        """Choose a server for a prompt, waiting for those on trial where no other is left; None where all have failed it."""
        task = asyncio.current_task()
        while not self._stops:
            if all(replica.refusal is not None for replica in self._replicas):
                raise BackendError(str(self._replicas[0].refusal))
            usable = [replica for replica in self._replicas if replica.refusal is None and replica not in failed]
            ready = [replica for replica in usable if replica.is_ready]
            now = time.monotonic()
            # While another one answers, a server that stopped has its pause; otherwise it is the best there is.
            free = [each for each in usable if not each.is_ready and each.owner in {None, task}]
            if due := [each for each in free if each.retry_at <= now or not ready]:
                return due[0]
            if ready:
                return min(ready, key=lambda replica: replica.in_flight)
            # A prompt that has a trial of its own waits for attempts, and never for the pause of another one.
            is_owner = any(each.owner is task for each in self._replicas)
            if not any(each.owner not in {None, task} and (each.in_flight or not is_owner) for each in usable):
                return None
            await self._changed.wait()
        return None

    def _failed(self, replica: Replica, reason: str) -> None:
        """Leave a server out for a while when it keeps failing and another one answers."""
        replica.failures += 1
        replica.last_fault = reason
        if not replica.is_ready:
            replica.leave_out()
            return
        others = any(each.is_ready for each in self._replicas if each is not replica)
        if others and replica.failures >= _FAILURES_TO_LEAVE_OUT:
            replica.leave_out()
            _LOGGER.warning("the server at %s is left out for a while: %s", replica.shown, reason)

    def _refused(self, replica: Replica, error: HNLMError) -> None:
        """Ask nothing more of a server.

        Raises:
            HNLMError: it was the last one.
        """
        if replica.refusal is None:
            replica.refusal, replica.owner = error, None
            if all(each.refusal is not None for each in self._replicas):
                self._stops = True
                raise error
            _LOGGER.warning("a server is left out for the rest of the run: %s", error)

    def _give_up(self, fault: NoAnswerError, retries: int) -> None:
        """Leave a prompt unanswered.

        Raises:
            BackendError: no server answers.
        """
        if not any(replica.is_ready for replica in self._replicas):
            faults = [f"{each.shown}: {each.refusal or each.last_fault or fault}" for each in self._replicas]
            self._stops = True  # before those that wait for this trial wake up
            one = f"the server at {self._replicas[0].shown} does not answer ({fault})"
            what = one if len(faults) == 1 else f"none of {len(faults)} servers answers ({'; '.join(faults)})"
            raise BackendError(f"{what} after {retries} retries; check that it runs, llm_base_url and llm_timeout")
        self._given_up += 1
        if self._given_up >= max(2, self._concurrency):
            self._given_up = 0
            _LOGGER.warning("no server answers any more (%s): one prompt goes out as a trial", fault)
            for replica in self._replicas:
                replica.is_ready = False
                replica.retry_at = 0.0


def _pause(rounds: int, asked: float | None) -> float:
    """Seconds before a prompt is sent again: doubling, with a random part, and no less than the server asks for."""
    doubled = min(_FIRST_BACKOFF * 2.0 ** (rounds - 1), _LONGEST_BACKOFF)
    return asked if asked is not None else doubled * random.uniform(0.75, 1.0)  # noqa: S311 - no secret
