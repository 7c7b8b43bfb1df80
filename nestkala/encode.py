"""`accelerate launch -m nestkala.encode ...` is `nestkala encode ...` in several processes."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main(["encode", *sys.argv[1:]]))
