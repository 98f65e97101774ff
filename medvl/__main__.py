"""``python -m medvl``."""

from medvl.cli import main

if __name__ == "__main__":
    main()
