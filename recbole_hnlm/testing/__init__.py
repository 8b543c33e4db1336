"""Conformance tests of models and negative samplers, to be inherited by the tests of any package; they need pytest.

.. code-block:: python

    from recbole_hnlm.testing import ModelConformance

    class TestMyModel(ModelConformance):
        model = "my_package.my_module:MyModel"
"""

from __future__ import annotations

import pytest

# Failing assertions show their values, as those of a test file do.
pytest.register_assert_rewrite("recbole_hnlm.testing.models", "recbole_hnlm.testing.samplers")

from recbole_hnlm.testing.models import ModelConformance  # noqa: E402 - after the line above
from recbole_hnlm.testing.samplers import SamplerConformance  # noqa: E402

__all__ = ["ModelConformance", "SamplerConformance"]
