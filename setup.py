"""Packaging of recbole-hnlm; metadata lives in pyproject.toml.

The YAML files live in the top-level ``properties/`` folder and are installed as the package ``recbole_hnlm.properties``.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["recbole_hnlm", "recbole_hnlm.*"]), "recbole_hnlm.properties"],
    package_dir={"recbole_hnlm.properties": "properties"},
    package_data={
        "recbole_hnlm": ["py.typed", "*.pyi"],
        "recbole_hnlm.experiments.report": ["templates/*"],
        "recbole_hnlm.properties": ["*.yaml", "*/*.yaml", "*/*.test"],
    },
    zip_safe=False,
)
