"""What an LLM stage is: a module-level object ``STAGE`` that says what it needs, what it would do, and does it.

A new stage is one file with such an object and one line in :mod:`recbole_hnlm.stages.catalogue`; its place in the order, its
verb on the command line, its part of ``--dry_run`` and its report follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from recbole_hnlm.stages.session import StageSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recbole_hnlm.config.settings import HNLMSettings
    from recbole_hnlm.data.store_format import StoreKind
    from recbole_hnlm.stages.planning import Planner, StagePlan
    from recbole_hnlm.stages.report import StageCounts

__all__ = ["NO_ROUTE", "Stage"]

#: Why a stage of the hard negatives has nothing to build.
NO_ROUTE = "negative_route is none; choose --negative_route=text"

SessionT_contra = TypeVar("SessionT_contra", bound=StageSession, contravariant=True)


class Stage(Protocol[SessionT_contra]):
    """One stage. Stateless: everything that it works on comes with the session.

    Attributes:
        name: its name in :data:`recbole_hnlm.stages.catalogue.STAGE_CATALOGUE`.
    """

    name: str

    def feeds(self, settings: HNLMSettings) -> Sequence[StoreKind]:
        """Kinds of vectors that are made of its output; the stage is needed where one of them is."""

    def reads(self, settings: HNLMSettings) -> Sequence[str]:
        """Names of the stages whose output it reads itself."""

    def refusal(self, settings: HNLMSettings, kinds: Sequence[StoreKind]) -> str | None:
        """Why the stage has nothing to build when it is asked for by name, and what to set; None where it has.

        Args:
            settings: the project's keys.
            kinds: the kinds of vectors that are wanted.
        """

    def run(self, session: SessionT_contra) -> StageCounts:
        """Make or reuse the stage's output.

        Raises:
            HNLMError: text, model, replies or folder cannot be used; the message says which, and what to do.
        """

    def plan(self, planner: Planner) -> StagePlan:
        """Say what :meth:`run` would have to do. Nothing is asked, made or written.

        Raises:
            HNLMError: :meth:`run` would fail for the same reason before its first prompt.
        """
