"""The `epochal` command with all of its commands: for help on all of them, for tests, and for `python -m`."""

from service.cli.commands import app_for

app = app_for("")

if __name__ == "__main__":
    app()
