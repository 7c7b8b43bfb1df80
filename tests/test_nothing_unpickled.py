"""No module runs what it reads: no pickles, no eval, no shell."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("nestkala", "heads", "losses", "scripts", "benchmarks", "reliability", "examples")
FILES = [ROOT / "train.py", *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]

MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}
SAFE = {"allow_pickle": "False", "weights_only": "True", "trust_remote_code": "False", "shell": "False"}


def faults(source: str) -> Iterator[str]:
    """What in a module could run what it reads, one at a time."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name.partition(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module), names=names):
                imported = {f"{module}.{name.name}" for name in names}
                yield from imported & (CALLS | {"torch.load"})
                if module.partition(".")[0] in MODULES:
                    yield module
            case ast.Call(func=function, keywords=keywords):
                name = ast.unparse(function)
                given = {str(keyword.arg): ast.unparse(keyword.value) for keyword in keywords}
                if name in CALLS or (name == "torch.load" and "weights_only" not in given):
                    yield name
                yield from (f"{name}({word}=...)" for word in SAFE.keys() & given if given[word] != SAFE[word])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_runs_what_it_reads(path: Path) -> None:
    assert list(faults(path.read_text(encoding="utf-8"))) == []


def test_the_modules_are_found() -> None:
    assert len(FILES) > 150
    assert {ROOT / "nestkala" / "cli.py", ROOT / "heads" / "nested.py", ROOT / "losses" / "dcc.py"} <= set(FILES)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, marshal as m",
        "from pickle import loads",
        "import joblib.externals",
        "def f():\n    from shelve import open",
        "eval('1')",
        "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=chosen)",
        "from torch import load",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=chosen)",
        "yaml.load(text, Loader=yaml.Loader)",
        "from yaml import load",
        "subprocess.run('ls', shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_what_runs_what_it_reads_is_seen(source: str) -> None:
    assert list(faults(source))


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "yaml.safe_load(text)",
        "model.eval()",
    ],
)
def test_what_does_not_is_let_be(source: str) -> None:
    assert not list(faults(source))
