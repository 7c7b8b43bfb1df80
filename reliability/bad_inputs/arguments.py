"""Arguments that are out of range, or that conflict."""

from .case import Case, refused
from .damage import replaced
from .good import command, on_path

_COMMANDS = {
    "search INDEX IMAGE --bits 0": "bits must be",
    "search INDEX IMAGE --bits 21": "1 to 20",
    "search INDEX IMAGE -k 0": "k must be",
    "search INDEX IMAGE --radius -1": "radius must be",
    "search INDEX IMAGE --bits 1 --shortlist 5": "shortlist must be",
    "search INDEX IMAGE --shortlist 50": "--bits",
    "search INDEX IMAGE --radius 1 --k 5": "--k",
    "index SHARDS NEW --save-every 5": "--save-every",
    "train --loss dsh --alpha 50 --head-init random": "alpha 50.0 has no effect",
    "train --loss-args alpha 50 --head-init random": "--alpha",
    "train --loss csq": "loss csq has no effect",
    "train --rank 2": "rank 2 has no effect",
    "search INDEX": "an image or a sentence",
    "search INDEX IMAGE --radius 1 --rescore": "--radius",
    "search INDEX IMAGE --model FEATURE_RUN": "feature-run",
    "classify RUN IMAGE --bits 0": "0",
    "classify RUN IMAGE --bits 99": "99",
    "classify FEATURE_RUN IMAGE": "0.png",
    "eval RUN --lengths 4,99": "99",
    "eval IMAGES": "images",
    "eval": "run folder",
    "report IMAGES": "images",
    "advise IMAGES": "images",
    "export INDEX OUT/codes.txt": "codes.txt",
    "export INDEX OUT --bits 99": "99",
    "export IMAGE NEW": "0.png",
    "encode IMAGES OUT --model RUN --shard-size 0": "shard size",
    "encode nowhere OUT --model RUN": "nowhere",
    "encode IMAGES SHARDS --model RUN": "shard size",
    "encode IMAGES RUN --model RUN": "run exists",
    "index nowhere NEW --model RUN": "nowhere",
    "index SHARDS NEW --model RUN": "--model",
    "train --output RUN": "run already exists",
    "train --resume RUN --config digits": "--config",
    "train --resume RUN --lengths 8": "lengths",
    "train --resume IMAGES": "images",
    "train --config nope": "'nope'",
    "experiment nope": "'nope'",
    "experiment cifar10 --seeds 0": "seeds",
    "experiment cifar10 --seeds 1000000000000": "seeds",
    "experiment cifar10 --data CIFAR=x": "'CIFAR'",
}

CASES: list[Case] = [
    *(refused(f"nestkala {line}", command(line), culprit) for line, culprit in _COMMANDS.items()),
    refused(
        "encode: output is a file",
        on_path("file", replaced("mine"), "encode IMAGES PATH --model RUN"),
        "is not a folder",
    ),
]
