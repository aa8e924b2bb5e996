"""Errors a user can mend, each in one line."""


class ConfigError(ValueError):
    """Names the field or argument, what it got and what it wanted; the CLI prints it and exits with 2."""
