"""Start the `vlwm` command; Ctrl-C ends it without a traceback from the first moment."""

import signal


def main() -> None:
    """Run the command; until it listens itself, signals end the process as the system does."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from vlwm.cli import main as run

    run()


if __name__ == "__main__":
    main()
