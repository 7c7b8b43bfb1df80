"""Settings: configs, experiments and descriptions in YAML."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .case import Case, Make, refused
from .features import trained_on
from .good import Good
from .spoiling import DEEP, NO_FORMATS

_BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
_NO_YAML: dict[str, tuple[str | bytes, str]] = {
    "a bracket too many": ("lengths: [8", "x.yaml"),
    "an output with a NUL": ('output: "a\\0b"\n', "it holds a NUL"),
    "a cache with a NUL": ('cache: "a\\0b"\n', "it holds a NUL"),
    "many threads": ("threads: 100000\n", "threads"),
    "a key twice": ("epochs: 1\nshots: 1\nepochs: 2\n", "'epochs' is set twice"),
    "a key twice in a mapping": ("loss_args: {margin: 1, margin: 2}\n", "'margin' is given twice"),
    "Latin-1": ("data: gr\xfcn".encode("latin-1"), "x.yaml"),
    "a control character": ("data: a\x07b\n", "x.yaml"),
    "10,000 brackets": ("lengths: " + DEEP.replace("[", "[\n"), "nested too deeply"),
    "a command to run": ("data: !!python/object/apply:os.system ['touch unpickled']\n", "python/object/apply"),
    "a list in place of a mapping": ("- epochs\n- 1\n", "list"),
    "a number for a key": ("1: 2\n", "not 1"),
    "a mapping for a key": ("? {a: b}\n: c\n", "x.yaml"),
    "an integer that is empty": ("epochs: !!int ''\n", "x.yaml"),
    "a truth that is none": ("batch_norm: !!bool maybe\n", "x.yaml"),
    "a day that there is not": ("data: 2026-99-99\n", "x.yaml"),
    "a number of 5,000 digits": ("epochs: " + "9" * 5000, "x.yaml"),
    "a hexadecimal number of 5,000 digits": ("epochs: 0x" + "f" * 5000, "too large"),
    "merge keys": ("a: &a {epochs: 1}\n<<: *a\n", "'<<'"),
}
_NO_CONFIG: dict[str, tuple[str | bytes, str]] = {
    "a word too many": ("epoch: 1\n", "did you mean 'epochs'"),
    "a word for a number": ("epochs: many\n", "not 'many'"),
    "a fraction of an epoch": ("epochs: 1.5\n", "epochs"),
    "no lengths": ("lengths: []\n", "lengths"),
    "a length of 0": ("lengths: [0, 8]\n", "lengths"),
    "a length of 513": ("lengths: [513]\n", "lengths"),
    "a rank of a billion": ("rank: 1000000000\n", "rank"),
    "a billion learned tokens": ("adapter: prompts\nprompt_length: 1000000000\n", "prompt_length"),
    "no number for a rate": ("lr: .nan\n", "lr"),
    "an infinite weight": ("alpha: .inf\n", "alpha"),
    "fewer than no epochs": ("epochs: -1\n", "epochs"),
    "a seed beyond 32 bits": ("seed: 99999999999\n", "seed"),
    "no such backbone": ("backbone: tinny\n", "did you mean 'tiny'"),
    "no such weights of photo": ("backbone: photo:lite3\n", "did you mean 'lite2'"),
    "no such loss": ("loss: kido\n", "did you mean 'kiddo'"),
    "no such loss with HSWD": ("loss: kido-hswd\n", "did you mean 'kiddo-hswd'"),
    "a rate that drops twice at once": ("lr_drops: [5, 5]\n", "[5, 5]"),
    "no settings for so many shots": ("shots: 3\nby_shots: {1: {rank: 2}}\n", "not for 3"),
    "settings of some shots alone": ("by_shots: {1: {rank: 2}, 4: {lr: 1}}\n", "only for some of 1, 4 shots"),
    "no such anchors": ("anchors: tinny\n", "'tinny'"),
    "prompts without a place for the name": ("prompts: [a photo]\n", "'a photo'"),
    "lists that grow without bound": (_BOMB.replace("a0:", "lengths:", 1), "x.yaml"),
    "a list that holds itself": ("lengths: &a [*a]\n", "lengths"),
    "a zero byte in a name": ('data: "a\\0b"\n', "'a\\x00b'"),
    "descriptions that are not there": ("descriptions: lost.yaml\n", "lost.yaml"),
    "a split that is not there": ("split: lost.json\n", "lost.json"),
}
_EXPERIMENT = "title: T\nbase: digits\ndata: {D: {data: digits}}\nshots: [1]\nlengths: [8]\nmethods: {M: {}}\n"
_NO_EXPERIMENT: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "title is missing"),
    "a method twice": (_EXPERIMENT.replace("{M: {}}", "{M: {}, M: {}}"), "'M' is given twice"),
    "an unknown setting": (_EXPERIMENT.replace("{M: {}}", "{M: {los: kiddo}}"), "methods.M.los"),
    "a trillion seeds": (_EXPERIMENT + "seeds: 1000000000000\n", "seeds"),
    "no methods": (_EXPERIMENT.replace("{M: {}}", "{}"), "methods"),
    "a name with a slash": (_EXPERIMENT + "name: ../../etc\n", "name"),
    "an unknown base": (_EXPERIMENT.replace("base: digits", "base: digit"), "did you mean 'digits'"),
}
_NO_DESCRIPTIONS: dict[str, tuple[str | bytes, str]] = {
    "that leave a class out": ("class 0: one", "'class 1'"),
    "that describe a class twice": ("class 0: one\nclass 1: two\nclass 0: three\n", "'class 0' is given twice"),
    "that are a list": ("- one\n- two\n", "list"),
    "that are numbers": ("class 0: 5\nclass 1: 6\n", "'class 0'"),
    "that are nested too deeply": (DEEP.replace("[", "[\n"), "nested too deeply"),
}


def _write(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def _config(content: str | bytes) -> Make:
    def make(here: Path, _: Good) -> list[str | Path]:
        _write(here / "x.yaml", content)
        return ["train", "--config", here / "x.yaml", "--output", here / "out"]

    return make


def _experiment(content: str | bytes) -> Make:
    def make(here: Path, _: Good) -> list[str | Path]:
        _write(here / "x.yaml", content)
        return ["experiment", here / "x.yaml", "--runs", here / "out", "--dry-run"]

    return make


def _descriptions(content: str | bytes) -> Make:
    def make(here: Path, good: Good) -> Sequence[str | Path]:
        _write(here / "said.yaml", content)
        return trained_on(lambda _: None, "--anchors", "tiny", "--descriptions", here / "said.yaml")(here, good)

    return make


def _each(
    what: str, make: Callable[[str | bytes], Make], contents: Mapping[str, tuple[str | bytes, str]]
) -> list[Case]:
    return [refused(f"{what} {said}", make(content), culprit) for said, (content, culprit) in contents.items()]


CASES = [
    *_each("a config with", _config, _NO_YAML | _NO_CONFIG),
    *_each("a config that is", _config, {what: (content, "x.yaml") for what, content in NO_FORMATS.items() if content}),
    *_each("an experiment of", _experiment, _NO_EXPERIMENT),
    *_each("descriptions", _descriptions, _NO_DESCRIPTIONS),
]
