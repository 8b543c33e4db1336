"""A worker of a search with a scripted objective: it waits a little, and kills its own process where a file asks for that.

It imports the engine alone, which takes a second, and not what trains a model.
"""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from recbole_hnlm.experiments.search import Search
from recbole_hnlm.experiments.search_plan import Outcome, SearchPlan
from recbole_hnlm.experiments.tune_loop import work


def end_with_parent():
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main():
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_parent, daemon=True).start()
    plan = SearchPlan.from_json(request["plan"])
    folder = Path(plan.folder)

    def objective(point, report, name):
        (folder / f"ran-{name}").write_text(f"{os.getpid()} {point}")
        report(0, 0.1)
        time.sleep(request["run"]["seconds"])
        with suppress(FileNotFoundError):
            (folder / "to kill").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome(float(point["n_layers"]), {"scores": [1.0], "valid": {"mrr@5": 1.0}, "epochs": [1]})

    work(Search(plan, request["worker"], request["workers"]), objective)


if __name__ == "__main__":
    main()
