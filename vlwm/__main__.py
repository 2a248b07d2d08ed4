"""`python -m vlwm` is the `vlwm` command."""

from vlwm.cli import main

if __name__ == "__main__":
    main()
