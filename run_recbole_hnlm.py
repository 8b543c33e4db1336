"""Train and evaluate one model: ``python run_recbole_hnlm.py --model=HNLMLightGCN --dataset=ml-100k``."""

import sys

from recbole_hnlm.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script())
