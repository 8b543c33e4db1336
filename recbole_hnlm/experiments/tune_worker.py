"""One process of a search: ``python -m recbole_hnlm.experiments.tune_worker``; one line of JSON on its input."""

from __future__ import annotations

import errno
import json
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from sqlalchemy.exc import SQLAlchemyError

from recbole_hnlm.experiments.search import Search
from recbole_hnlm.experiments.search_plan import SearchPlan
from recbole_hnlm.experiments.trial import TrialRun
from recbole_hnlm.experiments.worker import end_with_parent
from recbole_hnlm.utils.errors import USER_ERROR_EXIT_CODE, ArtifactError, BackendError, ConfigError, HNLMError
from recbole_hnlm.utils.logger import quiet_recbole
from recbole_hnlm.utils.values import redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from recbole_hnlm.experiments.search_plan import Outcome

    Objective = Callable[[dict[str, Any], Callable[[int, float], None], str], Outcome]

__all__ = ["main", "work"]


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
            search.fail(trial, _one_line(error))
        except HNLMError as error:
            search.interrupt(trial, _one_line(error))
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
            search.fail(trial, f"{type(error).__name__}: {_one_line(error)}")
        except KeyboardInterrupt:
            search.interrupt(trial, "by the user")
            raise


def _one_line(error: BaseException) -> str:
    return redact(" ".join(str(error).split()))[:500]


def _keep_traceback(search: Search, name: str) -> None:
    folder = Path(search.plan.folder) / "log"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text(redact(traceback.format_exc()), encoding="utf-8")


def main() -> int:
    """Work on the search that the first line of standard input describes; end where the input does.

    Returns:
        0, 130 after Ctrl-C, or 2 after one line ``error: ...`` on standard error for what the user can fix.
    """
    quiet_recbole()
    try:
        request = json.loads(sys.stdin.readline())
        threading.Thread(target=end_with_parent, daemon=True).start()
        try:
            search = Search(SearchPlan.from_json(request["plan"]), request["worker"], request["workers"])
            work(search, TrialRun.from_json(request["run"]).objective)
        except (SQLAlchemyError, StorageInternalError) as error:
            raise BackendError(f"the storage failed: {_one_line(error)[:300]}; run the same command again to go on") from error
    except HNLMError as error:
        sys.stderr.write(f"error: {_one_line(error)}\n")
        return USER_ERROR_EXIT_CODE
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
