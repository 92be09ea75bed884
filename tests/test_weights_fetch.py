"""Published checkpoints come to this machine whole and verified, or one error says why not and what to do."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from hub_server import HubServer
from safetensors.numpy import save

from lpcvc_zoo.entry import Preprocessing, Pretrained
from lpcvc_zoo.errors import WeightsError
from lpcvc_zoo.files import CACHE_VARIABLE
from lpcvc_zoo.weights import download, hashes
from lpcvc_zoo.weights.fetch import fetch, fetch_hub, find_cached, sha_of
from lpcvc_zoo.weights.sources import HubFile, WebFile, source_of

REPO = "org/model"


def checkpoint(floats: int = 1000, seed: int = 0) -> bytes:
    return save({"w": np.random.default_rng(seed).normal(size=floats).astype(np.float32)})


GOOD = checkpoint()
SHA = hashlib.sha256(GOOD).hexdigest()
PAGE = b"<!doctype html><title>Please log in</title>"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    for name in [name for name in os.environ if name.startswith("HF_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    huggingface_hub.close_session()
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def record(**facts: Any) -> Pretrained:
    common: dict[str, Any] = {
        "tag": "v1", "preprocessing": Preprocessing(), "licence": "x", "training_data": "x", "paper": "x",
    }  # fmt: skip
    return Pretrained(**(common | facts))


def web(hub: HubServer, name: str = "a/x.pt", **facts: Any) -> Pretrained:
    hub.files.setdefault(name, GOOD)
    return record(url=f"{hub.url}/files/{name}", **facts)


def refusal(wanted: Pretrained) -> str:
    with pytest.raises(WeightsError) as caught:
        fetch(wanted, model="tiny")
    return str(caught.value)


def start(call: str, argument: object, *, limit: int = 0, **env: str) -> subprocess.Popen[str]:
    order = json.dumps({"call": call, "argument": argument, "file_limit": limit})
    return subprocess.Popen(
        [sys.executable, "-m", "weights_driver", order],
        cwd=Path(__file__).parent,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    answer: dict[str, Any] = json.loads(out)
    return answer


def apart(call: str, argument: object, **how: Any) -> dict[str, Any]:
    return finish(start(call, argument, **how))


def got(call: str, argument: object, **how: Any) -> Path:
    answer = apart(call, argument, **how)
    assert "result" in answer, answer
    return Path(answer["result"])


def failed(call: str, argument: object, **how: Any) -> str:
    answer = apart(call, argument, **how)
    assert "error" in answer, answer
    message: str = answer["error"]
    return message


def left(folder: Path) -> list[str]:
    """Names of all that looks like weights in a folder, whole or in part."""
    return [path.name for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 500]


# --- where a record's file is


@pytest.mark.parametrize(
    ("pair", "repo"),
    [
        (("ViT-B-32-quickgelu", "openai"), "timm/vit_base_patch32_clip_224.openai"),
        (("MobileCLIP-S1", "datacompdr"), "apple/MobileCLIP-S1-OpenCLIP"),
    ],
)
def test_what_open_clip_publishes_on_the_hub_is_looked_for_there(pair: tuple[str, str], repo: str) -> None:
    usual = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    assert source_of(record(open_clip=pair, revision="v2")) == HubFile(repo, usual, "v2")
    named = source_of(record(open_clip=("ViTamin-S", "datacomp1b")))
    assert named == HubFile("jienengchen/ViTamin-S", ("pytorch_model.bin",))


@pytest.mark.parametrize(
    ("pair", "sha256"),
    [
        (("RN50", "openai"), "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"),
        (("RN50", "yfcc15m"), "455df137"),
        (("ViT-B-32-quickgelu", "metaclip_400m"), None),
    ],
)
def test_the_sha256_in_open_clip_s_urls_is_used(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[str, str], sha256: str | None
) -> None:
    import open_clip

    facts = open_clip.get_pretrained_cfg(*pair)
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"url": facts["url"]})
    assert source_of(record(open_clip=pair)) == WebFile(facts["url"], sha256)


def test_a_tag_that_open_clip_does_not_know_is_an_error_that_lists_its_tags() -> None:
    with pytest.raises(
        WeightsError, match=r"knows no weights 'nope' for RN50; it has: openai, yfcc15m, cc12m"
    ):
        source_of(record(open_clip=("RN50", "nope")))


# --- plain URLs


def test_a_download_is_kept_under_its_url_and_not_repeated(hub: HubServer, tmp_path: Path) -> None:
    wanted = web(hub, sha256=SHA, size_bytes=len(GOOD))
    assert find_cached(wanted) is None
    path = fetch(wanted, model="tiny")
    assert path.read_bytes() == GOOD
    assert path == tmp_path / "cache/weights/web" / f"127.0.0.1:{hub.port}" / "files/a/x.pt"
    assert fetch(wanted, model="tiny") == find_cached(wanted) == path
    assert len(hub.seen) == 1
    assert left(path.parent) == ["x.pt"]


def test_two_urls_that_differ_in_their_query_are_two_files(hub: HubServer) -> None:
    hub.files["x"] = GOOD
    paths = {fetch(record(url=f"{hub.url}/files/x?v={v}"), model="tiny") for v in "12"}
    assert len(paths) == 2


def test_a_dropped_connection_is_resumed(hub: HubServer) -> None:
    wanted = web(hub, sha256=SHA)
    hub.fail("x.pt", drop_after=1500)
    assert fetch(wanted, model="tiny").read_bytes() == GOOD
    first, second = hub.asked("x.pt")
    assert "range" not in first.headers
    assert second.headers["range"] == "bytes=1500-"
    assert second.headers["if-range"] == f'"{SHA}"'


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(hub: HubServer) -> None:
    wanted = web(hub, sha256=SHA)
    hub.fail("x.pt", drop_after=1500)
    hub.fail("x.pt", times=5, status=503)
    message = refusal(wanted)
    assert "HTTP 503" in message
    assert "Three ways on" in message
    assert find_cached(wanted) is None
    assert fetch(wanted, model="tiny").read_bytes() == GOOD
    assert hub.asked("x.pt")[-1].headers["range"] == "bytes=1500-"


def test_a_file_that_changed_meanwhile_is_begun_anew(hub: HubServer) -> None:
    wanted = web(hub)
    hub.fail("x.pt", drop_after=1500)
    hub.fail("x.pt", times=5, status=503)
    refusal(wanted)
    hub.files["a/x.pt"] = other = checkpoint(seed=1)
    assert fetch(wanted, model="tiny").read_bytes() == other


def test_a_server_that_can_t_resume_is_asked_for_the_whole(hub: HubServer) -> None:
    wanted = web(hub, sha256=SHA)
    hub.fail("x.pt", drop_after=1500)
    hub.fail("x.pt", no_ranges=True)
    assert fetch(wanted, model="tiny").read_bytes() == GOOD


def test_a_server_that_resumes_at_the_wrong_byte_is_asked_for_the_whole(hub: HubServer) -> None:
    wanted = web(hub, sha256=SHA)
    hub.fail("x.pt", drop_after=1500)
    hub.fail("x.pt", status=206, headers={"Content-Range": "bytes 10-20/30"}, body=b"x" * 10)
    assert fetch(wanted, model="tiny").read_bytes() == GOOD


def test_a_process_that_died_before_the_last_step_needs_nothing_again(hub: HubServer) -> None:
    wanted = web(hub, sha256=SHA)
    hub.fail("x.pt", drop_after=len(GOOD) - 1)
    hub.fail("x.pt", times=5, status=503)
    refusal(wanted)
    (part,) = source_of(wanted).places[0].parent.glob("*.part")
    part.write_bytes(GOOD)
    assert fetch(wanted, model="tiny").read_bytes() == GOOD


def test_a_wrong_hash_is_an_error_and_nothing_is_kept(hub: HubServer, tmp_path: Path) -> None:
    wanted = web(hub, sha256="0123abcd")
    message = refusal(wanted)
    assert SHA in message
    assert "0123abcd was published" in message
    assert left(tmp_path) == []


def test_a_prefix_of_the_sha256_is_enough(hub: HubServer) -> None:
    assert fetch(web(hub, sha256=SHA[:8]), model="tiny").read_bytes() == GOOD


def test_a_wrong_size_is_an_error_and_nothing_is_kept(hub: HubServer, tmp_path: Path) -> None:
    assert f"has {len(GOOD)} bytes, but the published file has 7" in refusal(web(hub, size_bytes=7))
    assert left(tmp_path) == []


def test_a_web_page_answered_as_if_it_were_the_file_is_told(hub: HubServer, tmp_path: Path) -> None:
    hub.files["a/x.pt"] = PAGE
    message = refusal(web(hub, sha256=SHA, size_bytes=len(GOOD)))
    assert f"What {hub.url}/files/a/x.pt gave is an HTML page that says 'Please log in'" in message
    assert not list(tmp_path.rglob("x.pt"))


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "not open to you"), (403, "not open to you"), (404, "does not exist"), (400, "HTTP 400")],
)
def test_an_answer_that_is_final_is_told_at_once(hub: HubServer, status: int, reason: str) -> None:
    hub.fail("x.pt", status=status)
    assert reason in refusal(web(hub))
    assert len(hub.seen) == 1


def test_a_server_in_trouble_is_asked_again(hub: HubServer) -> None:
    hub.fail("x.pt", status=503)
    hub.fail("x.pt", status=429)
    assert fetch(web(hub), model="tiny").read_bytes() == GOOD


def test_a_server_that_is_not_there_gives_three_ways_on(hub: HubServer, tmp_path: Path) -> None:
    message = refusal(record(url="http://127.0.0.1:9/x.pt", size_bytes=353976522))
    assert "tiny.v1 needs x.pt" in message
    assert "http://127.0.0.1:9/x.pt (354.0 MB)" in message
    assert f"put the file at {tmp_path}/cache/weights/web/127.0.0.1:9/x.pt" in message
    assert "pretrained=PATH" in message
    assert "pretrained=False" in message


def test_a_disk_without_room_is_told_before_the_download(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    assert f"has 100 bytes free, but {len(GOOD)} more are needed" in refusal(web(hub))


def test_a_disk_that_fills_up_is_told_and_freed(hub: HubServer, tmp_path: Path) -> None:
    hub.files["x.pt"] = checkpoint(50_000)
    message = failed("fetch", {"url": f"{hub.url}/files/x.pt"}, limit=100_000)
    assert "has no room for" in message
    assert f"It takes {len(hub.files['x.pt'])} bytes" in message
    assert left(tmp_path) == []


def test_a_cache_that_can_t_be_written_is_told(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    assert "can't be written" in refusal(web(hub))


def test_two_processes_download_once(hub: HubServer) -> None:
    wanted = {"url": f"{hub.url}/files/x.pt", "sha256": SHA}
    hub.files["x.pt"] = GOOD
    hub.fail("x.pt", delay=2.0)
    processes = [start("fetch", wanted) for _ in range(2)]
    assert finish(processes[0]) == finish(processes[1])
    assert len(hub.asked("x.pt")) == 1


def test_offline_no_plain_download_is_tried(hub: HubServer) -> None:
    message = failed("fetch", {"url": f"{hub.url}/files/x.pt"}, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in message
    assert "Three ways on" in message
    assert hub.seen == []


def test_a_file_put_where_the_error_says_is_used(hub: HubServer) -> None:
    wanted = record(url="http://127.0.0.1:9/x.pt", sha256=SHA)
    place = Path(re.search(r"put the file at (.*)", refusal(wanted))[1])  # type: ignore[index]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(PAGE)
    assert find_cached(wanted) is None
    place.write_bytes(GOOD)
    assert fetch(wanted, model="tiny") == find_cached(wanted) == place


def test_a_cached_file_that_was_damaged_is_downloaded_again(hub: HubServer) -> None:
    wanted = web(hub, sha256=SHA)
    path = fetch(wanted, model="tiny")
    path.write_bytes(GOOD[:-1] + b"?")
    assert find_cached(wanted) is None
    assert fetch(wanted, model="tiny").read_bytes() == GOOD


def test_a_verified_file_is_not_hashed_again(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = web(hub, sha256=SHA)
    path = fetch(wanted, model="tiny")
    assert find_cached(wanted) == path
    monkeypatch.setattr(hashes, "sha256_of", lambda _: pytest.fail("hashed again"))
    assert find_cached(wanted) == path
    assert sha_of(path) == SHA[:8]


def test_the_short_sha_follows_the_file(hub: HubServer, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    assert sha_of(path) == hashlib.sha256(b"one").hexdigest()[:8]
    path.write_bytes(b"two")
    assert sha_of(path) == hashlib.sha256(b"two").hexdigest()[:8]


def test_a_cache_without_write_access_still_gives_hashes(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(b"one")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "x"))
    assert sha_of(tmp_path / "x") == hashlib.sha256(b"one").hexdigest()[:8]


def test_a_progress_class_draws_the_download(hub: HubServer) -> None:
    drawn: list[Any] = []

    class Bar:
        def __init__(self, **facts: Any) -> None:
            drawn.append(facts)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, count: int) -> None:
            drawn.append(count)

    fetch(web(hub), model="tiny", progress=Bar)
    assert drawn[0]["total"] == sum(drawn[1:]) == len(GOOD)


# --- the hub

HUB_RECORD = {"repo": REPO, "file": "x.safetensors"}


def test_a_hub_file_comes_by_the_redirect_into_the_hub_s_cache(hub: HubServer, tmp_path: Path) -> None:
    hub.token = "secret"
    hub.publish(REPO, {"x.safetensors": GOOD})
    path = got("fetch", HUB_RECORD | {"sha256": SHA, "size_bytes": len(GOOD)}, HF_TOKEN="secret")
    assert path.read_bytes() == GOOD
    assert path.is_relative_to(tmp_path / "hf/hub/models--org--model/snapshots")
    (resolved,) = hub.asked("resolve", "HEAD")
    (sent,) = hub.asked("cdn")
    assert resolved.headers["authorization"] == "Bearer secret"
    assert "authorization" not in sent.headers


def test_a_record_of_open_clip_comes_under_whichever_usual_name_the_hub_has(hub: HubServer) -> None:
    hub.publish("timm/vit_base_patch32_clip_224.openai", {"open_clip_pytorch_model.bin": GOOD})
    wanted = {"open_clip": ["ViT-B-32-quickgelu", "openai"]}
    path = got("fetch", wanted)
    assert path.name == "open_clip_pytorch_model.bin"
    assert got("fetch", wanted, HF_HUB_OFFLINE="1") == path


def test_a_hub_file_of_known_hash_needs_the_hub_once(hub: HubServer) -> None:
    hub.publish(REPO, {"x.safetensors": GOOD})
    pinned = HUB_RECORD | {"sha256": SHA}
    path = got("fetch", pinned)
    hub.seen.clear()
    assert got("fetch", pinned) == got("find_cached", pinned) == path
    assert hub.seen == []


def test_a_hub_branch_that_moved_is_followed(hub: HubServer) -> None:
    hub.publish(REPO, {"x.safetensors": GOOD}, revision="v1")
    hub.publish(REPO, {"x.safetensors": checkpoint(seed=1)}, revision="v2")
    assert got("fetch", HUB_RECORD | {"revision": "v1"}).read_bytes() == GOOD
    hub.repos[REPO].revisions["v1"] = hub.repos[REPO].revisions["v2"]
    hub.repos[REPO].commit = lambda revision: hashlib.sha1(b"new").hexdigest()  # type: ignore[method-assign]
    assert got("fetch", HUB_RECORD | {"revision": "v1"}).read_bytes() == checkpoint(seed=1)


def test_a_hub_download_that_breaks_off_is_resumed(hub: HubServer) -> None:
    large = checkpoint(6_000_000)  # the hub's client keeps what came in blocks of 10 MB
    hub.publish(REPO, {"x.safetensors": large})
    hub.fail("cdn", drop_after=14_000_000)
    assert got("fetch", HUB_RECORD).read_bytes() == large
    first, second = hub.asked("cdn")
    assert "range" not in first.headers
    assert re.fullmatch(r"bytes=\d{8}-", second.headers["range"])


def test_a_hub_in_trouble_is_asked_again(hub: HubServer) -> None:
    hub.publish(REPO, {"x.safetensors": GOOD})
    hub.fail("resolve", method="HEAD", status=503)
    hub.fail("cdn", status=429)
    assert got("fetch", HUB_RECORD).read_bytes() == GOOD


def test_a_private_or_missing_hub_repository_is_told(hub: HubServer) -> None:
    message = failed("fetch", HUB_RECORD)
    assert f"{hub.url}/org/model at revision 'main' can't be read (HTTP 401)" in message
    assert "hf auth login" in message


def test_a_gated_hub_repository_is_told_with_its_page(hub: HubServer) -> None:
    hub.publish(REPO, {"x.safetensors": GOOD})
    hub.repos[REPO].gated, hub.token = True, "secret"
    message = failed("fetch", HUB_RECORD, HF_TOKEN="other")
    assert f"org/model is gated: accept its licence at {hub.url}/org/model" in message


def test_a_missing_hub_file_or_revision_is_told(hub: HubServer) -> None:
    hub.publish(REPO, {"y.bin": GOOD})
    assert "/org/model has no file x.safetensors at revision 'main'" in failed("fetch", HUB_RECORD)
    assert "/org/model has no revision 'v9'" in failed("fetch", HUB_RECORD | {"revision": "v9"})


@pytest.mark.parametrize("sent", [GOOD[:-1] + b"?", PAGE.ljust(len(GOOD))], ids=["damaged", "web page"])
def test_other_bytes_than_the_hub_promised_are_not_kept(hub: HubServer, tmp_path: Path, sent: bytes) -> None:
    hub.publish(REPO, {"x.safetensors": GOOD})
    hub.blobs[SHA] = sent
    message = failed("fetch", HUB_RECORD)
    assert ("Please log in" if sent.startswith(b"<") else "was damaged on its way") in message
    assert left(tmp_path) == []
    assert apart("find_cached", HUB_RECORD) == {"result": None}
    hub.blobs[SHA] = GOOD
    assert got("fetch", HUB_RECORD).read_bytes() == GOOD


def test_a_sound_hub_file_that_is_not_the_record_s_is_refused_but_left_to_others(hub: HubServer) -> None:
    hub.publish(REPO, {"x.safetensors": GOOD})
    wrong = HUB_RECORD | {"sha256": "0123abcd"}
    assert "0123abcd was published" in failed("fetch", wrong)
    assert apart("find_cached", wrong) == {"result": None}
    assert got("find_cached", HUB_RECORD).read_bytes() == GOOD


def test_offline_with_an_empty_cache_there_are_three_ways_on(hub: HubServer, tmp_path: Path) -> None:
    wanted = HUB_RECORD | {"size_bytes": 353976522, "revision": "v1"}
    message = failed("fetch", wanted, HF_HUB_OFFLINE="1")
    assert "tiny.v1 needs x.safetensors" in message
    assert "HF_HUB_OFFLINE is set" in message
    assert f"{hub.url}/org/model/resolve/v1/x.safetensors (354.0 MB)" in message
    assert f"put the file at {tmp_path}/cache/weights/hub/org/model/v1/x.safetensors" in message
    assert "pretrained=PATH" in message
    assert "pretrained=False" in message
    assert hub.seen == []


def test_a_hub_file_put_where_the_error_says_is_used_without_the_hub(hub: HubServer, tmp_path: Path) -> None:
    place = tmp_path / "cache/weights/hub/org/model/main/x.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(GOOD)
    assert fetch(record(**HUB_RECORD), model="tiny") == place
    place = place.rename(place.with_name("model.safetensors"))
    assert fetch_hub("hf-hub:org/model") == place
    assert hub.seen == []


def lay_out_as_the_hub_s_cache(home: Path, files: dict[str, bytes]) -> None:
    folder, commit = home / "hub/models--org--model", "a" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(commit)
    (folder / "blobs").mkdir()
    (folder / "snapshots" / commit).mkdir(parents=True)
    for name, body in files.items():
        digest = hashlib.sha256(body).hexdigest()
        (folder / "blobs" / digest).write_bytes(body)
        (folder / "snapshots" / commit / name).symlink_to(f"../../blobs/{digest}")


def test_a_folder_laid_out_as_the_hub_s_cache_works_offline(hub: HubServer, tmp_path: Path) -> None:
    lay_out_as_the_hub_s_cache(tmp_path / "hf", {"x.safetensors": GOOD, "x.pt": checkpoint(seed=1)})
    for call in ("fetch", "find_cached"):
        assert got(call, HUB_RECORD, HF_HUB_OFFLINE="1").read_bytes() == GOOD
    assert got("fetch_hub", "hf-hub:org/model", HF_HUB_OFFLINE="1").name == "x.pt"


def test_without_a_network_the_hub_s_cache_is_used(hub: HubServer, tmp_path: Path) -> None:
    lay_out_as_the_hub_s_cache(tmp_path / "hf", {"x.safetensors": GOOD, "model.safetensors": GOOD})
    gone = "http://127.0.0.1:9"
    assert got("fetch", HUB_RECORD, HF_ENDPOINT=gone).read_bytes() == GOOD
    assert got("fetch_hub", "hf-hub:org/model", HF_ENDPOINT=gone).name == "model.safetensors"


def test_an_endpoint_that_is_not_there_or_no_hub_is_told(hub: HubServer) -> None:
    gone = failed("fetch", HUB_RECORD, HF_ENDPOINT="http://127.0.0.1:9")
    assert "the download from http://127.0.0.1:9 failed (ConnectError" in gone
    hub.fail("resolve", method="HEAD", status=200, body=PAGE)
    assert f"{hub.url} does not answer as a hub does (check HF_ENDPOINT" in failed("fetch", HUB_RECORD)


def test_a_disk_that_fills_up_on_a_hub_download_is_told(hub: HubServer, tmp_path: Path) -> None:
    hub.publish(REPO, {"x.safetensors": checkpoint(50_000)})
    message = failed("fetch", HUB_RECORD, limit=100_000)
    assert f"No room for x.safetensors of org/model below {tmp_path}/hf/hub" in message
    assert left(tmp_path) == []


# --- hf-hub:org/repo


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["pytorch_model.bin", "model.safetensors", "config.json"], "model.safetensors"),
        (["model.safetensors", "open_clip_pytorch_model.bin"], "open_clip_pytorch_model.bin"),
        (["open_clip_pytorch_model.bin", "open_clip_model.safetensors"], "open_clip_model.safetensors"),
        (["README.md", "mobileclip_s0.pt"], "mobileclip_s0.pt"),
    ],
)
def test_the_checkpoint_of_a_hub_repository_is_found(hub: HubServer, names: list[str], chosen: str) -> None:
    hub.publish(REPO, {name: checkpoint(seed=seed) for seed, name in enumerate(names)})
    assert got("fetch_hub", "hf-hub:org/model").name == chosen


def test_a_revision_of_a_hub_repository_is_taken(hub: HubServer) -> None:
    hub.publish(REPO, {"model.safetensors": checkpoint(seed=1)})
    hub.publish(REPO, {"model.safetensors": GOOD}, revision="v2")
    assert got("fetch_hub", "hf-hub:org/model@v2").read_bytes() == GOOD


def test_a_hub_repository_without_one_checkpoint_is_told_with_its_files(hub: HubServer) -> None:
    hub.publish(REPO, {"a.pt": GOOD, "b.pt": GOOD})
    message = failed("fetch_hub", "hf-hub:org/model")
    assert "2 *.pt files; it holds: a.pt, b.pt" in message
    assert "hf download org/model FILE" in message


def test_a_missing_hub_repository_or_network_is_told(hub: HubServer, tmp_path: Path) -> None:
    assert "can't be read (HTTP 401)" in failed("fetch_hub", "hf-hub:org/model")
    message = failed("fetch_hub", "hf-hub:org/model", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in message
    assert f"put the file at {tmp_path}/cache/weights/hub/org/model/main" in message


@pytest.mark.parametrize(
    "spec", ["org/model", "hf-hub:model", "hf-hub:a/b/c", "hf-hub:org/model@", "hf-hub:../.."]
)
def test_a_spec_of_another_form_is_an_error_that_shows_the_form(spec: str) -> None:
    with pytest.raises(WeightsError, match=re.escape("not of the form 'hf-hub:org/repo'")):
        fetch_hub(spec)
