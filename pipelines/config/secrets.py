"""Keeping passwords and tokens out of all that is printed or stored."""

import os
import re
import sys
from traceback import format_exception
from types import TracebackType

HIDDEN = "***"
NAMES = r"(?:password|passwd|secret|token|signature|sig|credentials?|(?:api|access|secret|account)[_-]?key)"
USER_OF_ADDRESS = re.compile(r"://[^\s/]*@")
NAMED = re.compile(rf"(?<![\w])((?:[\w.\[\]-]*[._-])?{NAMES}=)[^&\s'\"]+", re.IGNORECASE)
OPTION = re.compile(rf"(--(?:[\w-]*-)?{NAMES} )\S+", re.IGNORECASE)
HEADER = re.compile(r"\b((?:Bearer|Basic) )[\w.~+/=-]{8,}")
IN_ENVIRONMENT = re.compile(rf"(?:^|_){NAMES}$", re.IGNORECASE)
SHORTEST = 8
"""Characters of a secret of the environment; shorter ones would be found in any text."""


def without_secrets(text: object) -> str:
    """A text, or the message of an error, without passwords.

    Hidden are the user of an address, what is given to a name such as `token` or `password`, and the values
    of environment variables of such names, wherever they stand.
    """
    shown = USER_OF_ADDRESS.sub(f"://{HIDDEN}@", str(text))
    for pattern in (NAMED, OPTION, HEADER):
        shown = pattern.sub(rf"\1{HIDDEN}", shown)
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and IN_ENVIRONMENT.search(name):
            shown = shown.replace(value, HIDDEN)
    return shown


def print_failure(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of an error that nobody expected; the `sys.excepthook` of every command."""
    sys.stderr.write(without_secrets("".join(format_exception(kind, error, trace))))
