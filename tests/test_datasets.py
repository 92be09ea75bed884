"""Datasets: every form read, every flaw told with its row, nothing paired by order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from wheels import install

from lpcvc_zoo.errors import DatasetError, RegistryError, UnknownNameError
from lpcvc_zoo.retrieval import datasets
from lpcvc_zoo.retrieval.datasets import list_datasets, load_dataset
from lpcvc_zoo.retrieval.records import RetrievalDataset


def picture(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(path)
    return path


def lpcvc(folder: Path, texts: str, images: str, files: tuple[str, ...] = ("a.jpg", "b.jpg")) -> Path:
    """A folder in the challenge's form; ``texts`` and ``images`` are the two lists as they are on disk."""
    for name in files:
        picture(folder / "images" / name)
    (folder / "txt_list.csv").write_text(texts, encoding="utf-8", newline="")
    (folder / "img_list.csv").write_text(images, encoding="utf-8", newline="")
    return folder


def meaning(data: RetrievalDataset) -> dict[str, list[str]]:
    """The texts of every image by its file name."""
    return {
        image.name: [data.texts[index] for index in positives]
        for image, positives in zip(data.images, data.positives, strict=True)
    }


def told(data: RetrievalDataset, level: str = "warning") -> list[str]:
    return [str(problem) for problem in data.problems if problem.level == level]


# ---- the bundled benchmark and names


def test_a_spread_part_has_its_own_texts_alone_and_another_name() -> None:
    whole = load_dataset("photos")
    part = whole.spread(4)
    assert part.images == tuple(whole.images[place] for place in (0, 40, 81, 122))
    assert meaning(part) == {image.name: meaning(whole)[image.name] for image in part.images}
    assert set(part.texts) == {text for texts in meaning(part).values() for text in texts}
    assert part.name == "photos, 4 of 163"
    assert part.fingerprint() != whole.fingerprint()
    assert whole.spread(163) is whole.spread(500) is whole


def test_the_bundled_photos_are_whole_and_say_what_they_do_not_show() -> None:
    data = load_dataset("photos", strict=True)
    assert (data.name, len(data.images), len(data.texts), data.links) == ("photos", 163, 474, 504)
    assert data.problems == ()
    for limit in ("not the challenge's data", "not comparable to COCO", "Never train or tune"):
        assert limit in data.note
    assert "CC0" in data.licence


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'photos'\? There is no file or folder of"):
        load_dataset("fotos")


@pytest.mark.parametrize("path", ["./nothing_here", "nothing/here", "nothing.json", Path("photos")])
def test_a_path_that_is_not_there_is_no_unknown_name(
    path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match=r"does not exist\. Expected a folder with txt_list\.csv"):
        load_dataset(path)


def test_a_name_wins_over_a_folder_and_a_dot_gives_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lpcvc(tmp_path / "photos", "1,a dog.\n", "a.jpg,1\n")
    monkeypatch.chdir(tmp_path)
    assert len(load_dataset("photos").images) == 163
    assert len(load_dataset("./photos").images) == len(load_dataset(Path("photos")).images) == 1


# ---- the challenge's CSV pair


def test_the_published_form_with_its_oddities_is_read(tmp_path: Path) -> None:
    folder = lpcvc(
        tmp_path,
        '\ufeffText_nums,Unique_Texts,Length\r\n1,"a red, round ball.",3\r\n2,two dogs.,2\r\n\r\n'
        "3,a cat.,2\r\n",
        "\ufeffImage_names,Text_nums,Source\r\na.jpg,1;2,x\r\nb.jpg,2; 3 ;,x\r\n",
    )
    data = load_dataset(folder, strict=True)
    assert meaning(data) == {"a.jpg": ["a red, round ball.", "two dogs."], "b.jpg": ["two dogs.", "a cat."]}
    assert data.texts == ("a red, round ball.", "two dogs.", "a cat.")


def test_lists_without_a_header_are_read_by_place(tmp_path: Path) -> None:
    data = load_dataset(lpcvc(tmp_path, "1,a dog.\n2,a cat.\n", "b.jpg,2\na.jpg,1\n"), strict=True)
    assert meaning(data) == {"b.jpg": ["a cat."], "a.jpg": ["a dog."]}


def test_a_header_of_unknown_names_is_not_taken_for_a_row(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"txt_list\.csv: no column holds the text id"):
        load_dataset(lpcvc(tmp_path, "Nummer,Beschreibung\n1,a dog.\n", "Image_names,Text_nums\na.jpg,1\n"))


def test_pairing_is_by_file_name_and_does_not_depend_on_any_order(tmp_path: Path) -> None:
    texts = ["1,a dog.", "2,a cat.", "3,a cow."]
    images = ["Zebra.jpg,1", "apple.jpg,2", "Mango.jpg,3"]
    files = ("Zebra.jpg", "apple.jpg", "Mango.jpg")
    one = load_dataset(lpcvc(tmp_path / "one", "\n".join(texts), "\n".join(images), files))
    two = load_dataset(lpcvc(tmp_path / "two", "\n".join(texts[::-1]), "\n".join(images[::-1]), files[::-1]))
    expected = {"Zebra.jpg": ["a dog."], "apple.jpg": ["a cat."], "Mango.jpg": ["a cow."]}
    assert meaning(one) == meaning(two) == expected


def test_odd_file_names_are_found(tmp_path: Path) -> None:
    files = ("photo (1) [copy].jpg", "Caf\u00e9 B.JPG", "50% off;.jpg", "a,b.png")
    rows = 'photo (1) [copy].jpg,1\ncafe\u0301 b.jpg,2\n50% off;.jpg,3\n"a,b.png",4\n'
    data = load_dataset(lpcvc(tmp_path, "1,a.\n2,b.\n3,c.\n4,d.\n", rows, files), strict=True)
    assert [path.name for path in data.images] == list(files)


def test_an_exact_name_is_preferred_and_an_ambiguous_one_is_told(tmp_path: Path) -> None:
    files = ("Cat.jpg", "cat.jpg")
    data = load_dataset(lpcvc(tmp_path, "1,a.\n2,b.\n", "cat.jpg,1\nCAT.jpg,2\n", files))
    assert meaning(data) == {"cat.jpg": ["a."]}
    assert told(data) == [
        "img_list.csv, row 2: 'CAT.jpg' is no exact file name and matches several: ['Cat.jpg', 'cat.jpg']; "
        "the row is dropped"
    ]


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/hosts", "images/../../x.jpg"])
def test_a_list_does_not_reach_outside_its_folder(name: str, tmp_path: Path) -> None:
    picture(tmp_path / "secret.jpg")
    data = load_dataset(lpcvc(tmp_path / "in", "1,a dog.\n", f"a.jpg,1\n{name},1\n"))
    assert [path.name for path in data.images] == ["a.jpg"]
    assert "not the name of a file inside the image folder" in told(data)[0]


def test_flaws_are_told_with_their_rows_and_the_rest_is_read(tmp_path: Path) -> None:
    texts = "Text_nums,Unique_Texts\n1,a dog.\n2,   \n3,a cat.\n1,a cow.\n4\n5,a, b.\n"
    images = "Image_names,Text_nums\na.jpg,1;9\ngone.jpg,3\nb.jpg,8\nb.jpg,003\n"
    data = load_dataset(lpcvc(tmp_path, texts, images))
    assert meaning(data) == {"a.jpg": ["a dog."], "b.jpg": ["a cat."]}
    assert data.texts == ("a dog.", "a cat.", "a")
    assert told(data) == [
        "txt_list.csv, row 3: text id '2' has a blank caption; skipped",
        "txt_list.csv, row 5: text id '1' was given to another text before; this row is skipped",
        "txt_list.csv, row 6: 1 columns, expected 2; skipped",
        "txt_list.csv, row 7: 3 columns, expected 2; text with a comma must be quoted",
        "img_list.csv, row 2: unknown text id '9'; ignored",
        "img_list.csv, row 3: image 'gone.jpg' not found; the row is dropped",
        "img_list.csv, row 4: unknown text id '8'; ignored",
        "img_list.csv, row 4: no known text is left for 'b.jpg'; the row is dropped",
    ]


def test_strict_makes_warnings_an_error_but_not_notes(tmp_path: Path) -> None:
    flawed = lpcvc(tmp_path / "flawed", "1,a dog.\n", "a.jpg,1;9\n")
    with pytest.raises(
        DatasetError, match=r"flawed: 1 problem: img_list\.csv, row 1: unknown text id '9'; ignored$"
    ):
        load_dataset(flawed, strict=True)
    noted = lpcvc(tmp_path / "noted", "1,a dog.\n2,A  Dog.\n", "a.jpg,1\na.jpg,2\n")
    data = load_dataset(noted, strict=True)
    assert told(data, "note") == [
        "txt_list.csv, row 2: the same text as id '1'; the two count as one",
        "img_list.csv, row 2: 'a.jpg' has an earlier row; their texts are merged",
        "img_list.csv: 1 image files are in no row and are ignored: b.jpg",
    ]


def test_a_text_shared_by_images_belongs_to_each(tmp_path: Path) -> None:
    """Also where the file gives it two ids: no model could rank one copy before the other."""
    data = load_dataset(lpcvc(tmp_path, "1,a dog.\n2,a dog.\n3,a cat.\n", "a.jpg,1\nb.jpg,2;3\n"))
    assert data.texts == ("a dog.", "a cat.")
    assert data.positives == ((0,), (0, 1))


@pytest.mark.parametrize(
    ("texts", "images", "message"),
    [
        ("", "a.jpg,1\n", r"txt_list\.csv is empty"),
        ("1,a dog.\n", "\n\n", r"img_list\.csv is empty"),
        (
            "1,a dog.\n",
            "Image_names,Text_nums\n",
            r"no image that has a text was found.*looked for in.*images",
        ),
        ("1,a dog.\n", "gone.jpg,1\n", r"no image that has a text.*image 'gone\.jpg' not found"),
        ('1,"a dog.\n2,a cat.\n', "a.jpg,1\n", r"not a valid CSV file.*row at line 1"),
        ("1\n2\n", "a.jpg,1\n", r"expected two columns, text id and text; found one"),
        ("1,a \0 dog.\n", "a.jpg,1\n", r"line 1 holds a NUL byte"),
    ],
)
def test_lists_that_hold_nothing_to_score_are_errors(
    texts: str, images: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset(lpcvc(tmp_path, texts, images))


def test_a_missing_list_and_another_encoding_are_named(tmp_path: Path) -> None:
    folder = lpcvc(tmp_path, "1,a dog.\n", "a.jpg,1\n")
    (folder / "txt_list.csv").write_bytes("1,a caf\u00e9.\n".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"expected UTF-8, but line 1 holds the byte 0xe9"):
        load_dataset(folder)
    (folder / "txt_list.csv").unlink()
    with pytest.raises(DatasetError, match=r"holds no txt_list\.csv; this form needs both"):
        load_dataset(folder)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lpcvc(tmp_path / "data", "1,a dog.\n", "a.jpg,1\n")

    def refuse(self: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DatasetError, match=r"data can't be read: Permission denied"):
        load_dataset(folder)


# ---- a folder of images with a captions file


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.csv", 'image,caption\na.jpg,"a dog, running."\na.jpg,two dogs.\nb.jpg,a cat.\n'),
        ("captions.csv", 'a.jpg,"a dog, running."\na.jpg,two dogs.\nb.jpg,a cat.\n'),
        (
            "metadata.csv",
            'id,text,file_name\n1,"a dog, running.",a.jpg\n2,two dogs.,a.jpg\n3,a cat.,b.jpg\n',
        ),
        ("captions.tsv", "file name\ttext\na.jpg\ta dog, running.\na.jpg\ttwo dogs.\nb.jpg\ta cat.\n"),
        (
            "captions.jsonl",
            '{"image": "a.jpg", "captions": ["a dog, running.", "two dogs."]}\n\n'
            '{"image": "b.jpg", "captions": "a cat."}\n',
        ),
        (
            "metadata.jsonl",
            '{"file_name": "a.jpg", "text": "a dog, running."}\n{"file_name": "a.jpg", "text": "two dogs."}\n'
            '{"file_name": "b.jpg", "text": "a cat.", "width": 8}\n',
        ),
    ],
)
@pytest.mark.parametrize("given", ["folder", "file"])
def test_a_captions_file_is_read_in_every_form(name: str, content: str, given: str, tmp_path: Path) -> None:
    for image in ("a.jpg", "b.jpg"):
        picture(tmp_path / image)
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    data = load_dataset(tmp_path if given == "folder" else tmp_path / name, strict=True)
    assert meaning(data) == {"a.jpg": ["a dog, running.", "two dogs."], "b.jpg": ["a cat."]}


def test_images_may_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    picture(tmp_path / "data" / "images" / "day" / "a.jpg")
    picture(tmp_path / "elsewhere" / "b.jpg")
    (tmp_path / "data" / "captions.csv").write_text("day/a.jpg,a dog.\nb.jpg,a cat.\n")
    assert meaning(load_dataset(tmp_path / "data")) == {"a.jpg": ["a dog."]}
    other = load_dataset(tmp_path / "data", images=tmp_path / "elsewhere")
    assert meaning(other) == {"b.jpg": ["a cat."]}
    with pytest.raises(DatasetError, match=r"images='.*nowhere' is not a folder"):
        load_dataset(tmp_path / "data", images=tmp_path / "nowhere")


def test_flaws_of_a_captions_file_are_told_with_their_rows(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    lines = [
        {"image": "a.jpg", "caption": "a dog."},
        {"image": "a.jpg", "caption": "A DOG."},
        {"image": "a.jpg", "caption": " "},
        {"image": "c.jpg", "caption": "a cat."},
        {"picture": "a.jpg", "caption": "a cat."},
        {"image": "a.jpg", "captions": []},
        ["a.jpg", "a cat."],
    ]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = load_dataset(tmp_path)
    assert meaning(data) == {"a.jpg": ["a dog."]}
    assert [problem.row for problem in data.problems] == [2, 3, 4, 5, 6, 7, None]
    assert told(data, "note") == [
        "captions.jsonl, row 2: 'a.jpg' has this caption already; it counts once",
        "captions.jsonl: 1 image files are in no row and are ignored: b.jpg",
    ]
    assert "image 'c.jpg' not found" in told(data)[1]
    assert "expected an object with 'image' or 'file_name'" in told(data)[2]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"holds no captions\. Expected a folder with txt_list\.csv"),
        ({"mine.json": "{}"}, r"holds no captions\. .*Or give the path of a file, such as .*/mine\.json\."),
        ({"annotations/captions_val.json": ""}, r"of several splits\. Give .*annotations/captions_val\.json"),
        ({"captions.csv": "", "captions.tsv": ""}, r"several captions files: captions\.csv, captions\.tsv"),
        ({"captions.jsonl": "{'a': 1}\n"}, r"captions\.jsonl, row 1: not valid JSON"),
        ({"captions.jsonl": "\n"}, r"no image that has a text was found"),
        ({"captions.csv": "image\na.jpg\n"}, r"no column holds the caption\. Columns found: 'image'"),
    ],
)
def test_a_folder_without_usable_captions_is_an_error(
    files: dict[str, str], message: str, tmp_path: Path
) -> None:
    picture(tmp_path / "a.jpg")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(DatasetError, match=message):
        load_dataset(tmp_path)


def test_a_file_of_no_known_form_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"a\.jpg has none of the known forms"):
        load_dataset(picture(tmp_path / "a.jpg"))


# ---- COCO and Karpathy JSON


def written(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def test_coco_captions_are_read_in_coco_s_own_folders(tmp_path: Path) -> None:
    for name in ("000001.jpg", "000002.jpg", "000003.jpg"):
        picture(tmp_path / "val2017" / name)
    document = {
        "info": {},
        "images": [
            {"id": 2, "file_name": "000002.jpg"},
            {"id": 1, "file_name": "000001.jpg"},
            {"id": 3, "file_name": "000003.jpg"},
            {"id": 4, "file_name": "000004.jpg"},
            {"id": 1, "file_name": "000003.jpg"},
            {"id": 5},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "caption": "a dog."},
            {"id": 2, "image_id": 2, "caption": "a cat.\n"},
            {"id": 3, "image_id": 2, "caption": "A dog."},
            {"id": 4, "image_id": 77, "caption": "a cow."},
            {"id": 5, "image_id": 1},
        ],
    }
    data = load_dataset(written(tmp_path / "annotations" / "captions_val2017.json", document))
    assert meaning(data) == {"000002.jpg": ["a cat.\n", "A dog."], "000001.jpg": ["A dog."]}
    assert told(data) == [
        "captions_val2017.json, row 4: image '000004.jpg' not found; its captions are dropped",
        "captions_val2017.json, row 5: image id 1 was given to another image before; skipped",
        "captions_val2017.json, row 6: image without an 'id' or a 'file_name'; skipped",
        "captions_val2017.json, row 4: annotation of the unknown image id 77; skipped",
        "captions_val2017.json, row 5: annotation without a 'caption'; skipped",
    ]
    assert told(data, "note") == ["captions_val2017.json, row 3: '000003.jpg' has no caption and is left out"]


def karpathy(folder: Path) -> Path:
    def image(name: str, split: str, *texts: str) -> dict[str, Any]:
        sentences = [{"raw": text, "tokens": text.split()} for text in texts]
        return {"filepath": "val2014", "filename": name, "split": split, "sentences": sentences}

    for name in ("a.jpg", "b.jpg", "c.jpg"):
        picture(folder / "val2014" / name)
    images = [
        image("a.jpg", "test", "a dog.", "two dogs."),
        image("b.jpg", "train", "a cat."),
        image("c.jpg", "test", "a cow.", " "),
        image("gone.jpg", "test", "a hen."),
        image("b.jpg", "val", "the cat."),
    ]
    return written(folder / "dataset_coco.json", {"dataset": "coco", "images": images})


def test_karpathy_s_test_split_is_read_unless_another_is_named(tmp_path: Path) -> None:
    path = karpathy(tmp_path)
    data = load_dataset(path)
    assert meaning(data) == {"a.jpg": ["a dog.", "two dogs."], "c.jpg": ["a cow."]}
    assert told(data) == [
        "dataset_coco.json, row 3: 1 of 2 sentences of 'c.jpg' have a text that can be used",
        "dataset_coco.json, row 4: image 'gone.jpg' not found; its captions are dropped",
    ]
    assert meaning(load_dataset(path, split="val")) == {"b.jpg": ["the cat."]}
    with pytest.raises(
        DatasetError, match=r"no split 'dev'\. Splits there.*: test \(3\), train \(1\), val \(1\)"
    ):
        load_dataset(path, split="dev")


def test_karpathy_images_may_lie_beside_the_file_as_flickr30k_s_do(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "1.jpg")
    document = {"images": [{"filename": "1.jpg", "split": "test", "sentences": [{"raw": "a dog."}]}]}
    assert meaning(load_dataset(written(tmp_path / "dataset_flickr30k.json", document), strict=True)) == {
        "1.jpg": ["a dog."]
    }


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "none of the known forms"),
        ({"annotations": []}, "none of the known forms"),
        ({"images": {}, "annotations": []}, "expected 'images' to be a list of objects"),
        ({"images": [], "annotations": [1]}, "expected 'annotations' to be a list of objects"),
        ({"images": [], "annotations": []}, "no image that has a text was found"),
        ({"images": []}, r"no split 'test'\. Splits there, with their images: none"),
    ],
)
def test_json_of_another_form_is_an_error(document: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset(written(tmp_path / "x.json", document))


def test_broken_json_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"images": [}')
    with pytest.raises(DatasetError, match=r"x\.json: not valid JSON.*line 1, column 13"):
        load_dataset(tmp_path / "x.json")


def test_a_split_of_what_has_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="only Karpathy JSON has"):
        load_dataset(lpcvc(tmp_path, "1,a dog.\n", "a.jpg,1\n"), split="test")
    with pytest.raises(DatasetError, match="registered dataset: it takes neither"):
        load_dataset("photos", split="test")


# ---- the record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": (), "positives": ()}, "0 images and 2 texts"),
        ({"positives": ((0,), (1,))}, "positives for 2 images, but 1 images"),
        ({"positives": ((),)}, "expected at least one"),
        ({"positives": ((2,),)}, "from 0 to 1"),
        ({"positives": ((1, 0),)}, "rising"),
        ({"texts": ("a dog.", "A  dog.")}, "merge them"),
        ({"images": (Path("a"), Path("a")), "positives": ((0,), (1,))}, "listed twice"),
    ],
)
def test_a_dataset_that_contradicts_itself_cannot_be_made(change: dict[str, Any], message: str) -> None:
    facts: dict[str, Any] = {"images": (Path("a"),), "texts": ("a dog.", "a cat."), "positives": ((0,),)}
    with pytest.raises(DatasetError, match=message):
        RetrievalDataset(name="made", **(facts | change))


def test_a_fingerprint_follows_the_content_and_not_the_folder(tmp_path: Path) -> None:
    one = load_dataset(lpcvc(tmp_path / "one", "1,a dog.\n2,a cat.\n", "a.jpg,1\n"))
    two = load_dataset(lpcvc(tmp_path / "two", "1,a dog.\n2,a cat.\n", "a.jpg,1\n"))
    other = load_dataset(lpcvc(tmp_path / "other", "1,a dog.\n2,a cat.\n", "a.jpg,2\n"))
    assert one.fingerprint() == two.fingerprint() != other.fingerprint()
    (tmp_path / "one" / "images" / "a.jpg").unlink()
    with pytest.raises(DatasetError, match="can't be read any more"):
        one.fingerprint()


# ---- third parties

PLUGIN = """
from pathlib import Path
from lpcvc_zoo.retrieval.datasets import load_dataset

def load(*, strict=False):
    return load_dataset(Path(__file__).parent / "data", strict=strict)

def broken(*, strict=False):
    raise OSError("the shelf is empty")

def wrong(*, strict=False):
    return "not a dataset"

def leaving(*, strict=False):
    raise SystemExit(0)

number = 7
"""


@pytest.fixture(scope="session")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real distribution with datasets of its own, installed by pip into a folder of its own."""
    package = tmp_path_factory.mktemp("shelf") / "shelf_photos"
    lpcvc(package / "data", "1,a dog.\n2,a cat.\n", "a.jpg,1\nb.jpg,2\n")
    (package / "__init__.py").write_text(PLUGIN)
    points = {"shelf": "load", "shelf_broken": "broken", "shelf_wrong": "wrong", "shelf_gone": "gone"}
    points |= {"shelf_leaving": "leaving", "shelf_number": "number"}
    lines = [f"{name} = shelf_photos:{attribute}" for name, attribute in points.items()]
    target = tmp_path_factory.mktemp("target")
    entry_points = "\n".join([f"[{datasets.GROUP}]", *lines]) + "\n"
    install(target, package.parent, "shelf-photos", package, entry_points)
    return target


@pytest.fixture
def installed(distribution: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(distribution))
    return distribution


def test_a_third_party_s_dataset_takes_the_same_road(installed: Path) -> None:
    assert {"photos", "shelf"} <= set(list_datasets())
    data = load_dataset("shelf", strict=True)
    assert data.name == "shelf"
    assert meaning(data) == {"a.jpg": ["a dog."], "b.jpg": ["a cat."]}
    with pytest.raises(UnknownNameError, match="Did you mean 'shelf'"):
        load_dataset("shelv")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shelf_broken", "OSError: the shelf is empty"),
        ("shelf_gone", "AttributeError"),
        ("shelf_leaving", "SystemExit: 0"),
        ("shelf_number", "TypeError: 'int' object is not callable"),
        ("shelf_wrong", "gave a str; expected a RetrievalDataset"),
    ],
)
def test_a_broken_third_party_is_named_and_breaks_nothing_else(
    name: str, message: str, installed: Path
) -> None:
    with pytest.raises(DatasetError, match=rf"Dataset '{name}' of distribution 'shelf-photos' .*{message}"):
        load_dataset(name)
    assert len(load_dataset("shelf").images) == 2
    assert len(load_dataset("photos").images) == 163


def test_a_distribution_seen_twice_counts_once_and_two_of_one_name_are_an_error(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "again"
    link.symlink_to(installed, target_is_directory=True)
    monkeypatch.syspath_prepend(str(link))
    assert list_datasets().count("shelf") == 1
    rival = tmp_path / "rivals" / "rival-1.0.dist-info"
    rival.mkdir(parents=True)
    (rival / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (rival / "entry_points.txt").write_text(f"[{datasets.GROUP}]\nshelf = rival:load\nother = rival:load\n")
    monkeypatch.syspath_prepend(str(rival.parent))
    with pytest.raises(RegistryError, match=r"Two datasets are called 'shelf'.*(rival|shelf-photos)"):
        load_dataset("shelf")
    assert {"other", "shelf", "shelf_gone"} <= set(list_datasets())
    with pytest.raises(DatasetError, match=r"Dataset 'shelf_gone'"):  # the others go on
        load_dataset("shelf_gone")
