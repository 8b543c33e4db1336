"""A worker of a search with a scripted objective: it waits a little, and kills its own process where a file asks for that."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from recbole_hnlm.experiments import tune_worker
from recbole_hnlm.experiments.search_plan import Outcome
from recbole_hnlm.experiments.trial import TrialRun


def objective(self, point, report, name):
    folder = Path(self.folder)
    (folder / f"ran-{name}").write_text(f"{os.getpid()} {point}")
    report(0, 0.1)
    time.sleep(float(self.keys.get("seconds", 0)))
    with suppress(FileNotFoundError):
        (folder / "to kill").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(float(point["n_layers"]), {"scores": [1.0], "valid": {"mrr@5": 1.0}, "epochs": [1]})


if __name__ == "__main__":
    TrialRun.objective = objective
    sys.exit(tune_worker.main())
