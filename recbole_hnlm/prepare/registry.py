"""The sources that ``recbole-hnlm prepare`` knows: a new one is a file in this folder and a line below."""

from __future__ import annotations

from recbole_hnlm.prepare.amazon2014 import AMAZON_2014
from recbole_hnlm.prepare.amazon2018 import AMAZON_2018
from recbole_hnlm.prepare.amazon2023 import AMAZON_2023
from recbole_hnlm.prepare.yelp import YELP

__all__ = ["SOURCES"]

SOURCES = {
    source.name: source
    for source in (
        AMAZON_2014,
        AMAZON_2018,
        AMAZON_2023,
        YELP,
    )
}
