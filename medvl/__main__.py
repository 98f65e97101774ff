"""``python -m medvl`` and the ``medvl`` command."""

from __future__ import annotations

import os
import sys

from medvl.utils.extras import MissingExtraError, require_extra


def main() -> None:
    """Run the command line, or say which extra installs what it needs."""
    try:
        require_extra("The medvl command", "cli")
    except MissingExtraError as error:
        sys.exit(str(error))
    if not sys.stderr.isatty():  # a log gets the progress every ten seconds, not ten times a second
        os.environ.setdefault("TQDM_MININTERVAL", "10")
    from medvl.cli import main as run

    run()


if __name__ == "__main__":
    main()
