"""What the LLM stages of a run would have to do, each by its own plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_hnlm.semantics.pipeline import stages, stages_needed
from recbole_hnlm.stages.kinds import kinds_needed
from recbole_hnlm.stages.planning import Planner

if TYPE_CHECKING:
    from recbole_hnlm.llm.protocol import ModelIdentity
    from recbole_hnlm.stages.context import StageContext
    from recbole_hnlm.stages.planning import StagePlan

__all__ = ["plan_stages"]


def plan_stages(context: StageContext, identity: ModelIdentity) -> list[StagePlan]:
    """Plan every stage that training under the context's settings needs, in order.

    Args:
        context: what the stages would work on.
        identity: the model that would be asked.

    Raises:
        DataError: the text of the dataset cannot be read.
        ArtifactError: an artefact or the reply cache is damaged.
    """
    planner = Planner(context, identity, kinds_needed(context.settings))
    return [stages()[name].plan(planner) for name in stages_needed(context.settings)]
