"""The loop of a search's process: one trial after the other, and whose fault a failure is."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from sqlalchemy.exc import SQLAlchemyError

from recbole_hnlm.utils.addresses import redact
from recbole_hnlm.utils.errors import ArtifactError, ConfigError, HNLMError

if TYPE_CHECKING:
    from collections.abc import Callable

    from recbole_hnlm.experiments.search import Search
    from recbole_hnlm.experiments.search_plan import Outcome

    Objective = Callable[[dict[str, Any], Callable[[int, float], None], str], Outcome]

__all__ = ["one_line", "work"]


def work(search: Search, objective: Objective) -> None:
    """Run trials until no more are wanted.

    A point that cannot be configured, and any error that is none of ours, is the trial's own failure: it is recorded, and the
    search goes on. What no other point would change, such as a full disk or a server that does not answer, ends the process;
    the trial is tried again next time.

    Args:
        search: the search.
        objective: takes the point, the function to report to, and a name for the trial's files.

    Raises:
        HNLMError: what no other point would change.
    """
    while (trial := search.take()) is not None:
        name = f"trial-{trial.number}"
        try:
            search.run(trial, lambda point, report, name=name: objective(point, report, name))  # type: ignore[misc]
        except ConfigError as error:
            search.fail(trial, one_line(error))
        except HNLMError as error:
            search.interrupt(trial, one_line(error))
            raise
        except UpdateFinishedTrialError:
            # This process was silent for so long that another took it for dead and has the point tried again.
            continue
        except (SQLAlchemyError, StorageInternalError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                search.interrupt(trial, "the disk is full")
                raise ArtifactError(f"the disk is full ({error.filename}): free space, then run again") from error
            _keep_traceback(search, name)
            search.fail(trial, f"{type(error).__name__}: {one_line(error)}")
        except KeyboardInterrupt:
            search.interrupt(trial, "by the user")
            raise


def one_line(error: BaseException) -> str:
    """Write an error as one line without secrets."""
    return redact(" ".join(str(error).split()))[:500]


def _keep_traceback(search: Search, name: str) -> None:
    folder = Path(search.plan.folder) / "log"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text(redact(traceback.format_exc()), encoding="utf-8")
