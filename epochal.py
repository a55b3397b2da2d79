"""`python -m epochal`: the same as the `epochal` command."""

from epochal_command import main

if __name__ == "__main__":
    main()
