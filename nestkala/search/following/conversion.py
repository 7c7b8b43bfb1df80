"""An index whose images are all encoded anew, by another model."""

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
    """The index of the same folders by another model, which replaces the file of the one there was.

    The old index answers until the new one is complete. What is encoded is kept in WHERE.converting meanwhile, so that
    the same call goes on after an interruption.

    Args:
        index: the old one.
        where: its file.
        about: what the new one keeps of itself; its model's fingerprint is in it.
        folders: all folders of the index.
        hasher: the new model.
        exclude, allow_removal, workers, progress, keep_every: as for `update_from_folder`.

    Raises:
        NestKALAError: the old index is no file; images are missing, as for `update_from_folder`; or images of the old
            index cannot be listed, which would have no codes in the new one.
    """
    if not isinstance(index, PrefixIndex):
        raise NestKALAError(
            f"{shown_address(where)} is not a file: make a new index with the new model, and delete this one"
        )
    before = compare(index, folders, exclude, allow_removal)
    if lost := next((name for name in index.ids if name not in before.here and before.left_out.covers(name)), None):
        raise NestKALAError(f"{lost!r} cannot be listed, so it cannot be encoded: {shown_address(where)} is unchanged")
    unfinished = Path(f"{link_target(Path(where))}.converting")
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


def _begun(unfinished: Path, about: dict[str, str]) -> PrefixIndex | None:
    """What an interrupted conversion to the same model has left; None where there is none that can be read."""
    try:
        found = find_index(str(unfinished))
    except NestKALAError:
        return None
    same = found is not None and found.about.get("model_fingerprint") == about["model_fingerprint"]
    return found if same and isinstance(found, PrefixIndex) else None
