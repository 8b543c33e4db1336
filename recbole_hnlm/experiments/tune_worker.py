"""One process of a search: ``python -m recbole_hnlm.experiments.tune_worker``; one line of JSON on its input."""

from __future__ import annotations

import json
import sys
import threading

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from recbole_hnlm.experiments.search import Search
from recbole_hnlm.experiments.search_plan import SearchPlan
from recbole_hnlm.experiments.trial import TrialRun
from recbole_hnlm.experiments.tune_loop import one_line, work
from recbole_hnlm.experiments.worker import end_with_parent
from recbole_hnlm.utils.errors import USER_ERROR_EXIT_CODE, BackendError, HNLMError
from recbole_hnlm.utils.logger import quiet_recbole

__all__ = ["main"]


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
            raise BackendError(f"the storage failed: {one_line(error)[:300]}; run the same command again to go on") from error
    except HNLMError as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        return USER_ERROR_EXIT_CODE
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
