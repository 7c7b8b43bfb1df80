"""The pass through the trunk in two real processes beside that in one: equal to the bit, each image computed once."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from nestkala.backbones import load_backbone
from nestkala.tokens.cache import TokenCache, image_key
from nestkala.tokens.source import TokenSource
from nestkala.utils.errors import NestKALAError
from reliability.kills import launched, make_images, training
from reliability.launching import Launch
from reliability.workers import done

PROCESSES, BATCH, COUNT = 2, 4, 23
BROKEN = (2, 9, 10, 22)

SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from accelerate import Accelerator
from nestkala.backbones import load_backbone
from nestkala.utils.errors import NestKALAError
from nestkala.tokens.shared import SharedTokenSource
from nestkala.tokens.cache import TokenCache
from nestkala.tokens.source import TokenSource

sys.path.insert(0, sys.argv[1])
from tests.tokens.test_shared_tokens import BATCH, Files

images, out, caches, stop_at_broken = Files(Path(sys.argv[2])), Path(sys.argv[3]), sys.argv[4], sys.argv[5] == "stop"
torch.set_num_threads(1)
accelerator, computed = Accelerator(), []
number = accelerator.process_index
trunk = TokenSource.trunk
TokenSource.trunk = lambda self, batch: computed.append(len(batch)) or trunk(self, batch)
cache = {
    "none": lambda: None,
    "one": lambda: TokenCache(out / "cache", "kind", 1e9),
    "each": lambda: TokenCache(out / f"cache of {number}", "kind", 1e9),
}[caches]()
source = SharedTokenSource(TokenSource(load_backbone("tiny", 1), "fp32", BATCH, 0, cache), accelerator)
broken = None if stop_at_broken else []
try:
    batches = list(source.batches(images, range(len(images.names)), broken=broken))
except NestKALAError as error:
    (out / f"{number}.json").write_text(json.dumps({"error": str(error)}))
else:
    np.save(out / f"{number}.npy", torch.cat(batches).numpy())
    said = {"sizes": [len(batch) for batch in batches], "broken": broken, "computed": sum(computed)}
    if cache is not None:
        said["kept"] = sum(key in cache for key in source._keys(images, range(len(images.names)), cache, None))
    (out / f"{number}.json").write_text(json.dumps(said))
accelerator.end_training()
"""


class Files:
    """Images in files, some of which are none."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.iterdir())
        self.names = [path.name for path in self.paths]

    def read(self, index: int) -> bytes:
        return self.paths[index].read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("images")
    for number in range(COUNT):
        path = folder / f"{number:02}.png"
        if number in BROKEN:
            path.write_bytes(f"no image {number}".encode())
        else:
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def by_one(folder: Path) -> tuple[list[int], np.ndarray]:
    """The sizes of the batches, and the tokens, that one process computes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    source = TokenSource(load_backbone("tiny", 1), "fp32", BATCH, 0)
    batches = list(source.batches(Files(folder), range(COUNT), broken=[]))
    torch.set_num_threads(threads)
    return [len(batch) for batch in batches], torch.cat(batches).numpy()


def shared(folder: Path, place: Path, caches: str, at_broken: str = "go on") -> list[dict[str, object]]:
    """What each process says of a pass that they share."""
    place.mkdir(exist_ok=True)
    script = place / "script.py"
    script.write_text(SCRIPT)
    log = place / f"log {len(list(place.iterdir()))}"
    with Launch(PROCESSES, script, Path(__file__).parents[2], folder, place, caches, at_broken, folder=log) as launch:
        launch.done()
    return [json.loads((place / f"{number}.json").read_text()) for number in range(PROCESSES)]


@pytest.mark.slow
@pytest.mark.parametrize("caches", ["none", "one", "each"])
def test_two_processes_get_what_one_gets_and_compute_each_image_once(
    caches: str, folder: Path, by_one: tuple[list[int], np.ndarray], tmp_path: Path
) -> None:
    sizes, tokens = by_one
    said = shared(folder, tmp_path, caches)
    for number in range(PROCESSES):
        assert said[number]["sizes"] == sizes
        assert said[number]["broken"] == list(BROKEN)
        np.testing.assert_array_equal(np.load(tmp_path / f"{number}.npy").view(np.int16), tokens.view(np.int16))
    assert sum(of["computed"] for of in said) == COUNT - len(BROKEN)
    assert min(of["computed"] for of in said) >= BATCH  # both had a share
    if caches == "one":  # what the other has written is seen without opening the cache anew
        assert [of["kept"] for of in said] == [COUNT - len(BROKEN)] * PROCESSES
        assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == PROCESSES
    if caches != "none":
        again = shared(folder, tmp_path, caches)
        assert [of["computed"] for of in again] == [0, 0]
        for number in range(PROCESSES):
            np.testing.assert_array_equal(np.load(tmp_path / f"{number}.npy").view(np.int16), tokens.view(np.int16))


@pytest.mark.slow
def test_only_what_is_not_cached_is_computed(folder: Path, tmp_path: Path) -> None:
    files = Files(folder)
    cache = TokenCache(tmp_path / "cache", "kind", 1e9)
    source = TokenSource(load_backbone("tiny", 1), "fp32", BATCH, 0, cache)
    list(source.batches(files, [0, 1, 5, 12]))
    said = shared(folder, tmp_path, "one")
    assert sum(of["computed"] for of in said) == COUNT - len(BROKEN) - 4
    kept = TokenCache(tmp_path / "cache", "kind", 1e9)
    assert all((image_key(files.read(index)) in kept) == (index not in BROKEN) for index in range(COUNT))


@pytest.mark.slow
def test_all_processes_name_the_first_image_that_is_broken(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NestKALAError) as alone:
        list(TokenSource(load_backbone("tiny", 1), "fp32", BATCH, 0).batches(Files(folder), range(COUNT)))
    said = shared(folder, tmp_path, "one", "stop")
    assert [of["error"] for of in said] == [str(alone.value)] * PROCESSES
    assert "'02.png'" in str(alone.value)


@pytest.mark.slow
def test_a_run_of_two_processes_computes_every_image_once(tmp_path: Path) -> None:
    """The closed form's images without labels among them; features are scored by both, too."""
    images = make_images(tmp_path / "images", 40)
    settings = ("--head-init", "labels", "--queries", 6, "--score-features", "--class-bits", 8)
    scores, kept = [], []
    for processes in (1, 2):
        run = tmp_path / f"place {processes}" / "run"
        done(launched(training(images, run, 0, *settings), processes), tmp_path / "log")
        metrics = json.loads((run / "metrics.json").read_text())
        scores.append({key: value for key, value in metrics.items() if key != "seconds"})
        files = (run.parent / "cache").rglob("*.safetensors")
        segments = [path for path in files if path.name != "digests.safetensors"]
        kept.append(sorted(bytes(key.tolist()) for path in segments for key in load_file(path)["keys"]))
    assert len(kept[0]) == len(set(kept[0])) >= 40
    assert kept[1] == kept[0]  # none twice
    assert scores[0] == scores[1]
    assert scores[0]["features_map"] is not None
