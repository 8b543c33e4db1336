"""Our keys, one class per concern; :class:`recbole_hnlm.config.settings.HNLMSettings` combines them."""
