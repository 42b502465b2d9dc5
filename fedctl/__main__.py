"""The program `fedctl`: one line for Ctrl-C, also before the commands exist and after they end."""

import signal
import sys


def main() -> None:
    """Run the command line; end with its exit code."""
    try:
        from fedctl.cli import main as commands

        commands(prog_name="fedctl")
    except KeyboardInterrupt:  # while modules were imported, which takes longest
        sys.stderr.write("stopped by Ctrl-C\n")
        raise SystemExit(130) from None
    finally:  # what is left is Python's own end, which would print a traceback, or nothing
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
