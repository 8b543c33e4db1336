"""YAML settings of recbole-hnlm, installed as the package recbole_hnlm.properties."""
