"""`python -m clipo_train.adapters.verl`: prints what verl has of ours, or why it has not, and exits with 2."""

import sys

from clipo_train.adapters.verl.selfcheck import check
from clipo_train.errors import ConfigError


def main() -> int:
    """Prints one line per registry."""
    try:
        registered = check()
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for name, value in registered._asdict().items():
        sys.stdout.write(f"{name}: {value if isinstance(value, str) else ', '.join(value)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
