"""Settings: configs, experiments and descriptions in YAML."""

from collections.abc import Mapping

from .case import Case, refused
from .damage import DEEP, GARBAGE, replaced
from .features import TRAIN
from .good import on_path

_BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
_INVALID_YAML: dict[str, tuple[str | bytes, str]] = {
    "unbalanced bracket": ("lengths: [8", "x.yaml"),
    "NUL in output path": ('output: "a\\0b"\n', "it holds a NUL"),
    "NUL in cache path": ('cache: "a\\0b"\n', "it holds a NUL"),
    "100,000 threads": ("threads: 100000\n", "threads"),
    "duplicate key": ("epochs: 1\nshots: 1\nepochs: 2\n", "'epochs' is given twice"),
    "duplicate key in a mapping": ("loss_args: {margin: 1, margin: 2}\n", "'margin' is given twice"),
    "Latin-1 encoding": ("data: gr\xfcn".encode("latin-1"), "x.yaml"),
    "control character": ("data: a\x07b\n", "x.yaml"),
    "10,000 brackets": ("lengths: " + DEEP.replace("[", "[\n"), "nested too deeply"),
    "Python object tag": ("data: !!python/object/apply:os.system ['touch unpickled']\n", "python/object/apply"),
    "list instead of a mapping": ("- epochs\n- 1\n", "list"),
    "numeric key": ("1: 2\n", "not 1"),
    "mapping as key": ("? {a: b}\n: c\n", "x.yaml"),
    "empty integer": ("epochs: !!int ''\n", "x.yaml"),
    "invalid boolean": ("batch_norm: !!bool maybe\n", "x.yaml"),
    "impossible date": ("data: 2026-99-99\n", "x.yaml"),
    "5,000-digit integer": ("epochs: " + "9" * 5000, "x.yaml"),
    "5,000-digit hexadecimal integer": ("epochs: 0x" + "f" * 5000, "too large"),
    "merge keys": ("a: &a {epochs: 1}\n<<: *a\n", "'<<'"),
}
_INVALID_CONFIGS: dict[str, tuple[str | bytes, str]] = {
    "unknown key": ("epoch: 1\n", "did you mean 'epochs'"),
    "word instead of a number": ("epochs: many\n", "not 'many'"),
    "fractional epochs": ("epochs: 1.5\n", "epochs"),
    "no lengths": ("lengths: []\n", "lengths"),
    "zero length": ("lengths: [0, 8]\n", "lengths"),
    "length of 513": ("lengths: [513]\n", "lengths"),
    "rank of a billion": ("rank: 1000000000\n", "rank"),
    "prompt length of a billion": ("adapter: prompts\nprompt_length: 1000000000\n", "prompt_length"),
    "NaN learning rate": ("lr: .nan\n", "lr"),
    "infinite loss weight": ("alpha: .inf\n", "alpha"),
    "negative epochs": ("epochs: -1\n", "epochs"),
    "seed beyond 32 bits": ("seed: 99999999999\n", "seed"),
    "unknown backbone": ("backbone: tinny\n", "did you mean 'tiny'"),
    "unknown photo weights": ("backbone: photo:lite3\n", "did you mean 'lite2'"),
    "unknown loss": ("loss: kido\n", "did you mean 'kiddo'"),
    "unknown loss with HSWD": ("loss: kido-hswd\n", "did you mean 'kiddo-hswd'"),
    "duplicate learning rate drop": ("lr_drops: [5, 5]\n", "[5, 5]"),
    "no settings for this number of shots": ("shots: 3\nby_shots: {1: {rank: 2}}\n", "not for 3"),
    "setting for some numbers of shots only": ("by_shots: {1: {rank: 2}, 4: {lr: 1}}\n", "only for some of 1, 4 shots"),
    "unknown anchors": ("anchors: tinny\n", "'tinny'"),
    "prompt without placeholder": ("prompts: [a photo]\n", "'a photo'"),
    "billion laughs": (_BOMB.replace("a0:", "lengths:", 1), "x.yaml"),
    "self-referencing list": ("lengths: &a [*a]\n", "lengths"),
    "NUL in data path": ('data: "a\\0b"\n', "'a\\x00b'"),
    "missing descriptions file": ("descriptions: lost.yaml\n", "lost.yaml"),
    "missing split file": ("split: lost.json\n", "lost.json"),
}
_EXPERIMENT = "title: T\nbase: digits\ndata: {D: {data: digits}}\nshots: [1]\nlengths: [8]\nmethods: {M: {}}\n"
_INVALID_EXPERIMENTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "title is missing"),
    "duplicate method": (_EXPERIMENT.replace("{M: {}}", "{M: {}, M: {}}"), "'M' is given twice"),
    "unknown setting": (_EXPERIMENT.replace("{M: {}}", "{M: {los: kiddo}}"), "methods.M.los"),
    "a trillion seeds": (_EXPERIMENT + "seeds: 1000000000000\n", "seeds"),
    "no methods": (_EXPERIMENT.replace("{M: {}}", "{}"), "methods"),
    "path traversal in name": (_EXPERIMENT + "name: ../../etc\n", "name"),
    "unknown base": (_EXPERIMENT.replace("base: digits", "base: digit"), "did you mean 'digits'"),
}
_INVALID_DESCRIPTIONS: dict[str, tuple[str | bytes, str]] = {
    "missing class": ("class 0: one", "'class 1'"),
    "duplicate class": ("class 0: one\nclass 1: two\nclass 0: three\n", "'class 0' is given twice"),
    "list instead of a mapping": ("- one\n- two\n", "list"),
    "numbers instead of text": ("class 0: 5\nclass 1: 6\n", "'class 0'"),
    "nested too deeply": (DEEP.replace("[", "[\n"), "nested too deeply"),
}


def _each(kind: str, command: str, contents: Mapping[str, tuple[str | bytes, str]]) -> list[Case]:
    return [
        refused(f"{kind}: {what}", on_path("x.yaml", replaced(content), command), culprit)
        for what, (content, culprit) in contents.items()
    ]


_TRAIN = "train --config PATH --output OUT"

CASES = [
    *_each("config", _TRAIN, _INVALID_YAML | _INVALID_CONFIGS),
    *_each("config", _TRAIN, {what: (content, "x.yaml") for what, content in GARBAGE.items() if content}),
    *_each("experiment", "experiment PATH --runs OUT --dry-run", _INVALID_EXPERIMENTS),
    *_each("descriptions", f"{TRAIN} --data FEATURES --anchors tiny --descriptions PATH", _INVALID_DESCRIPTIONS),
]
