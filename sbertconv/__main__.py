"""The command line, for `python -m sbertconv`."""

from sbertconv import main

if __name__ == "__main__":  # and not in a process that this one starts
    main()
