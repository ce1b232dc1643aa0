"""``python -m layermelt`` is the command `layermelt`."""

from layermelt.cli import main

if __name__ == "__main__":
    main()
