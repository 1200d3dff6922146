"""`python -m experiments`."""

# Guarded, because a spawned worker imports the main module again.
if __name__ == "__main__":
    import sys

    from experiments.commands import main

    sys.exit(main(sys.argv[1:]))
