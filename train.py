"""Train nested binary codes: accelerate launch train.py --lengths 8,16,32 (see --help)."""

from nestkala.cli import train_main

if __name__ == "__main__":
    raise SystemExit(train_main())
