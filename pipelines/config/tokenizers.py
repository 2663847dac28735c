"""Tokenizers of settings, with errors that name the key."""

from pipelines.config.errors import ConfigError
from vlp.tokenizers import Tokenizer, TokenizerConfig


def build_tokenizer(config: TokenizerConfig, key: str) -> Tokenizer:
    """The tokenizer of some settings.

    Raises:
        ConfigError: its file is missing or is none; the message begins with the key.
    """
    try:
        return config.build()
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error
