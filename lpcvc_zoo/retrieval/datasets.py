"""Datasets by name or from files: the bundled one, those of third parties, and your own.

A plugin adds a line to its own pyproject.toml; the function takes ``strict`` and returns a
``RetrievalDataset``, most simply by calling ``load_dataset`` on a path of its own::

    [project.entry-points."lpcvc_zoo.datasets"]
    my_photos = "my_package.data:load"
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lpcvc_zoo.errors import DatasetError, UnknownNameError
from lpcvc_zoo.files import given_path
from lpcvc_zoo.plugins import distribution, names_in, point_named
from lpcvc_zoo.retrieval import captions, coco, lpcvc_csv, photos
from lpcvc_zoo.retrieval.files import ImageFinder, read_json
from lpcvc_zoo.retrieval.records import DatasetBuilder, RetrievalDataset

GROUP = "lpcvc_zoo.datasets"
BUILT_IN = {
    photos.NAME: photos.load,
    photos.HELD_OUT: photos.load_held_out,
    photos.CALIBRATION: photos.load_calibration,
}
_FORMS = (
    f"a folder with {lpcvc_csv.TEXT_LIST} and {lpcvc_csv.IMAGE_LIST}; a folder of images with one of "
    f"{', '.join(captions.FILES)}; such a captions file itself; a COCO captions or Karpathy .json file"
)


def list_datasets() -> list[str]:
    """Names of all datasets, built-in and third-party, sorted. Loads none of them."""
    return sorted({*BUILT_IN, *names_in(GROUP)})


def load_dataset(
    name_or_path: str | Path,
    *,
    strict: bool = False,
    images: str | Path | None = None,
    split: str | None = None,
) -> RetrievalDataset:
    """A registered dataset by its name, or one read from a file or folder.

    Files and folders: the challenge's CSV pair, a folder of images with a captions file (CSV, TSV, JSON
    Lines), COCO captions JSON, Karpathy JSON (its test ``split`` unless another is named). Images are looked
    for beside the file, in ``images/`` there, and where COCO keeps them; or only in the folder ``images``.
    They are matched by file name; case and Unicode form do not count where no exact name is there. A name
    wins over a folder of that name; "./photos" is the folder.

    What is odd in the files is listed in ``problems`` with file and row; with ``strict`` any warning is an
    error. UnknownNameError for names nobody registered; DatasetError for what can't be read or has no image
    with a text.
    """
    name = str(name_or_path)
    registered = isinstance(name_or_path, str) and (name in BUILT_IN or name in names_in(GROUP))
    if registered:
        if images is not None or split is not None:
            raise DatasetError(f"{name} is a registered dataset: it takes neither images= nor split=.")
        return _registered(name, strict)
    path = given_path(name_or_path)
    looks_like_a_path = isinstance(name_or_path, Path) or path.name != name or path.suffix != ""
    try:
        if not path.exists() and not looks_like_a_path:
            raise UnknownNameError(
                "dataset", name, list_datasets(), "There is no file or folder of that name either."
            )
        return _read(path, strict, None if images is None else given_path(images), split)
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror or error}.") from error


def _read(path: Path, strict: bool, images: Path | None, split: str | None) -> RetrievalDataset:
    if not path.exists():
        raise DatasetError(f"{path} does not exist. Expected {_FORMS}.")
    if images is not None and not images.is_dir():
        raise DatasetError(f"images={str(images)!r} is not a folder.")
    file = path if path.is_file() else _file_in(path)
    builder = DatasetBuilder(path.resolve().name, strict=strict)
    around = [file.parent / "images", file.parent]
    document = read_json(file) if file.suffix.lower() == ".json" else None
    if coco.is_coco(document) or coco.is_karpathy(document):
        around += coco.coco_folders(file)
    finder = ImageFinder(*(around if images is None else [images]))
    if split is not None and not coco.is_karpathy(document):
        raise DatasetError(f"{path} has no splits; only Karpathy JSON has. Leave out split={split!r}.")
    if file.name == lpcvc_csv.IMAGE_LIST:
        lpcvc_csv.read(file.parent, finder, builder)
    elif coco.is_coco(document):
        coco.read_coco(file, document, finder, builder)
    elif coco.is_karpathy(document):
        coco.read_karpathy(file, document, split or coco.SPLIT, finder, builder)
    elif file.suffix.lower() in captions.SUFFIXES:
        captions.read(file, finder, builder)
    else:
        raise DatasetError(f"{file} has none of the known forms. Expected {_FORMS}.")
    return builder.build(looked_in=finder.folders)


def _file_in(folder: Path) -> Path:
    """The file that says what a folder's images show."""
    names = {item.name for item in folder.iterdir()}
    if names & {lpcvc_csv.TEXT_LIST, lpcvc_csv.IMAGE_LIST}:
        return folder / lpcvc_csv.IMAGE_LIST
    found = [name for name in captions.FILES if name in names]
    annotations = sorted(folder.glob("annotations/captions_*.json"))
    if not found and annotations:
        named = ", ".join(str(path) for path in annotations)
        raise DatasetError(f"{folder} is COCO's tree, of several splits. Give the path of one: {named}.")
    if len(found) > 1:
        listed = ", ".join(found)
        raise DatasetError(f"{folder} holds several captions files: {listed}. Give the path of one.")
    if not found:
        suffixes = (*captions.SUFFIXES, ".json")
        files = [str(folder / name) for name in sorted(names) if name.endswith(suffixes)]
        hint = f" Or give the path of a file, such as {files[0]}." if files else ""
        raise DatasetError(f"{folder} holds no captions. Expected {_FORMS}.{hint}")
    return folder / found[0]


def _registered(name: str, strict: bool) -> RetrievalDataset:
    point = point_named(GROUP, "dataset", name, BUILT_IN)
    if point is None:
        return BUILT_IN[name](strict=strict)
    whose = f"Dataset {name!r} of distribution {distribution(point)!r}"
    try:
        dataset = point.load()(strict=strict)
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise DatasetError(
            f"{whose} can't be loaded ({point.value}): {type(error).__name__}: {error}"
        ) from error
    if not isinstance(dataset, RetrievalDataset):
        raise DatasetError(f"{whose} gave a {type(dataset).__name__}; expected a RetrievalDataset.")
    return replace(dataset, name=name)
