"""``python -m recbole_hnlm <verb>``."""

from __future__ import annotations

import sys

from recbole_hnlm.cli import main

sys.exit(main())
