"""Run `nestkala encode ...` in several processes with `accelerate launch -m nestkala.encode ...`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main(["encode", *sys.argv[1:]]))
