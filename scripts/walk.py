"""Makes the outputs and pictures of the walk in docs/photographs.md again, from photographs that it puts together.

python scripts/walk.py --caltech caltech101 --coco coco256

Needs Caltech-101 in folders by class, any folder of other photographs, Chromium, and `pip install "nestkala[test]"`.
The page holds the commands. What they print is cut to a few lines and put into the block of text after each.
"""

import os
import random
import re
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro
from pictures import chromium, keep, searched, served
from PIL import Image

from nestkala.utils.files import write_text

PAGE = Path("docs/photographs.md")
WALK = re.compile(r"(?<=<!-- walk -->\n).*(?=<!-- end of the walk -->)", re.S)
STEP = re.compile(r"^```bash\n(?P<commands>[^`]*)^```\n\n```text\n[^`]*^```\n", re.M)
MACHINE = re.compile(r"^The times are .*\n(?:.+\n)*", re.M)
PHOTOGRAPHS, COPIES, OF_A_KIND = 250, 4, 12
KINDS: tuple[str, ...] = (
    "panda",
    "kangaroo",
    "elephant",
    "sunflower",
    "lotus",
    "motorbikes",
    "airplanes",
    "ketch",
    "grand_piano",
)
KINDS += ("dalmatian", "car_side", "pizza", "pagoda")
LABELS = {"dog": "dalmatian", "car": "car_side", "flower": "sunflower"}
LABELS_A_CLASS = 4
FIRST_DAY, DAYS = 1672567200, 3 * 365  # seconds since 1970: January 1, 2023
LINES, COLUMNS = 9, 118


def main(caltech: Path, coco: Path, pictures: Path = Path("docs/pictures")) -> None:
    """Run the walk in a temporary folder, and rewrite the page and its pictures.

    Args:
        caltech: Caltech-101, a folder per class.
        coco: photographs of all sorts, in folders of any depth.
        pictures: folder to write walk_found.jpg and walk_serve.jpg to.
    """
    page = PAGE.read_text()
    with TemporaryDirectory() as folder:
        where = Path(folder)
        put_together(where, caltech, coco, random.Random(0))

        def run(step: re.Match[str]) -> str:
            commands = [shlex.split(line) for line in step["commands"].replace("\\\n", " ").splitlines()]
            printed = "\n".join(ran(command, where) for command in commands)
            return f"```bash\n{step['commands']}```\n\n```text\n{printed}\n```\n"

        page = WALK.sub(lambda walk: MACHINE.sub(machine(), STEP.sub(run, walk[0])), page)
        with chromium() as browser:
            shown = browser.new_page(viewport={"width": 1000, "height": 510}, device_scale_factor=0.8)
            shown.goto((where / "found.html").as_uri())
            keep(shown.screenshot(), pictures / "walk_found.jpg")
            with served(str(where / "photos.index")) as address:
                keep(searched(browser, address, where / "query.jpg", 1000, "light"), pictures / "walk_serve.jpg")
    write_text(PAGE, page)


def put_together(folder: Path, caltech: Path, coco: Path, rng: random.Random) -> None:
    """What the walk starts from: photos, labeled, query.jpg, a.jpg, b.jpg and c.jpg.

    photos holds 250 files in folders by year, dated evenly over three years. Four are smaller copies of others.
    None of the labeled photographs and queries is among them.
    """

    def drawn(kind: str, number: int, without: Sequence[Path] = ()) -> list[Path]:
        return rng.sample([path for path in sorted((caltech / kind).iterdir()) if path not in without], number)

    chosen = [path for kind in KINDS for path in drawn(kind, OF_A_KIND)]
    others = sorted(path for path in coco.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    chosen += rng.sample(others, PHOTOGRAPHS - COPIES - len(chosen))
    rng.shuffle(chosen)
    for number, path in enumerate(chosen):
        day = number * DAYS // len(chosen)
        place = folder / "photos" / str(2023 + day // 365) / f"IMG_{number:04}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        os.utime(place, (FIRST_DAY + day * 86400,) * 2)
    for number, path in enumerate(chosen[:COPIES]):
        copy = folder / "photos" / "2025" / f"IMG_{number:04}_small.jpg"
        with Image.open(path) as image:
            image.convert("RGB").resize((image.width // 2, image.height // 2)).save(copy, quality=75)
        os.utime(copy, (FIRST_DAY + (DAYS - 1) * 86400,) * 2)
    for name, kind in LABELS.items():
        (folder / "labeled" / name).mkdir(parents=True)
        *labeled, query = drawn(kind, LABELS_A_CLASS + 1, chosen)
        for number, path in enumerate(labeled):
            shutil.copyfile(path, folder / "labeled" / name / f"{number}.jpg")
        shutil.copyfile(query, folder / {"dog": "query.jpg", "car": "a.jpg", "flower": "b.jpg"}[name])
    shutil.copyfile(drawn("panda", 1, chosen)[0], folder / "c.jpg")


def ran(command: Sequence[str], folder: Path) -> str:
    """What a command prints, cut, and its processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "NESTKALA_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lines = [line if len(line) <= COLUMNS else f"{line[: COLUMNS - 4]} ..." for line in done.stdout.splitlines()]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 3], "...", *lines[-2:]]
    return "\n".join([*lines, f"[{seconds:.1f} s]"])


def machine() -> str:
    """Where the times were measured, as a paragraph."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    name = found[1].strip() if found else "unknown"
    return f"The times are processor time, on one core of a processor that calls itself {name}, without a GPU.\n"


if __name__ == "__main__":
    tyro.cli(main)
