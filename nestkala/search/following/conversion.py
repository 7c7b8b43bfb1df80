"""Convert an index to another model by encoding all its images again."""

from collections.abc import Sequence
from pathlib import Path

from ...hasher import Hasher
from ...index.contract import SearchIndex
from ...index.prefix_index import PrefixIndex
from ...utils.errors import NestKALAError
from ...utils.files import link_target
from ..folder import Changes, compare, update_from_folder
from ..opening import find_index, save_index, shown_address
from ..places import ImageFolders


def converted(
    index: SearchIndex,
    where: str,
    about: dict[str, str],
    folders: ImageFolders,
    hasher: Hasher,
    *,
    exclude: Sequence[str] = (),
    allow_removal: bool = False,
    workers: int = 0,
    progress: bool = False,
    keep_every: int = 10_000,
) -> tuple[PrefixIndex, Changes]:
    """Index the same folders with another model, and replace the file of the old index.

    The old index stays usable until the new one is complete. Until then, new codes are kept in WHERE.converting, so
    the same call resumes after an interruption.

    Args:
        index: the old index.
        where: its file.
        about: notes for the new index, including its model's fingerprint.
        folders: all folders of the index.
        hasher: the new model.
        exclude, allow_removal, workers, progress, keep_every: as for `update_from_folder`.

    Raises:
        NestKALAError: the old index is not a file; images are missing, as for `update_from_folder`; or images of the
            old index cannot be listed, so that the new one would lose them.
    """
    if not isinstance(index, PrefixIndex):
        raise NestKALAError(
            f"{shown_address(where)} is not a file: create a new index with the new model, and delete this one"
        )
    before = compare(index, folders, exclude, allow_removal)
    if lost := next((name for name in index.ids if name not in before.here and before.left_out.covers(name)), None):
        raise NestKALAError(
            f"{lost!r} cannot be listed now, so it cannot be encoded: {shown_address(where)} was not changed"
        )
    unfinished = _unfinished(where)
    new = _begun(unfinished, about) or PrefixIndex.empty(hasher.lengths[-1], about)
    changes = update_from_folder(
        new,
        folders,
        hasher,
        exclude=exclude,
        allow_removal=True,
        workers=workers,
        progress=progress,
        keep=lambda: save_index(new, str(unfinished)),
        keep_every=keep_every,
    )
    new.about = about
    save_index(new, where)
    unfinished.unlink(missing_ok=True)
    return new, changes


def forget_conversion(index: SearchIndex, where: str) -> None:
    """Delete what a conversion has left that was killed after it had replaced the index."""
    unfinished = _unfinished(where)
    if isinstance(index, PrefixIndex) and unfinished.is_file() and _begun(unfinished, index.about) is not None:
        unfinished.unlink()


def _unfinished(where: str) -> Path:
    return Path(f"{link_target(Path(where))}.converting")


def _begun(unfinished: Path, about: dict[str, str]) -> PrefixIndex | None:
    """What an interrupted conversion to the same model left, or None if there is nothing readable."""
    try:
        found = find_index(str(unfinished))
    except NestKALAError:
        return None
    if not isinstance(found, PrefixIndex):
        return None
    same = all(found.about.get(key) == about.get(key) for key in ("model_fingerprint", "backend"))
    return found if same else None
