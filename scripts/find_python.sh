#!/bin/sh
# Prints the Python to make the environment with: the first that runs, is 3.10 to 3.12 and can make environments.
# It is tried by running it, because version managers leave commands of that name that only print an error.
# The one of an environment that is there comes first: an environment made with a Python of the user's choice stays.
# Where none fits it prints one that runs at all, so that check_machine.py can say what is wrong with it.

candidates=".venv/bin/python python3.11 python3.12 python3.10 python3"

first_that_runs() {
    for name in $candidates; do
        if "$name" -c "$1" >/dev/null 2>&1; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}

first_that_runs 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' ||
    first_that_runs 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' ||
    first_that_runs 'import sys; sys.exit(sys.version_info < (3, 6))' || {
    echo "No Python 3.10, 3.11 or 3.12 was found: install one, or name it: make PYTHON=/path/to/python3.11" >&2
    exit 1
}
