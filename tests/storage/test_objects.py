"""Files at a URL: whole, by name, and in one line what is wrong."""

import builtins
import os
import time
from pathlib import Path

import pytest

from tests import patience
from tests.objectstore import SECRET, Server
from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.storage import objects
from trainer.storage.objects import Objects


def test_what_is_stored_is_there(store: Server, name: str, tmp_path: Path) -> None:
    kept = Objects(store.url(name))
    assert kept.names() == {} and kept.read("a") is None
    kept.put("a", b"one")
    kept.put("folder/b", b"")
    kept.put("folder/more/c", b"three")
    kept.put("folders/d", b"4")
    assert kept.names() == {"a": 3, "folder/b": 0, "folder/more/c": 5, "folders/d": 1}
    assert kept.names("folder") == {"folder/b": 0, "folder/more/c": 5}
    kept.put("a", b"another")
    assert kept.read("a") == b"another" and kept.fetch("folder/b", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b""
    kept.delete(["a", "folder/b", "never there"])
    assert kept.names() == {"folder/more/c": 5, "folders/d": 1}


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_a_large_file_travels_in_pieces(
    store: Server, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: int
) -> None:
    monkeypatch.setattr(objects, "PIECE", 5 << 20)  # the least that S3 takes
    content = os.urandom(2 * objects.PIECE + extra)
    (tmp_path / "large").write_bytes(content)
    kept = Objects(store.url(name))
    kept.put("large", tmp_path / "large")
    assert kept.fetch("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "large"]


def test_what_is_not_there_leaves_no_file(store: Server, name: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("of another run")
    assert not Objects(store.url(name)).fetch("old", tmp_path / "old")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there(store: Server, name: str) -> None:
    kept = Objects(store.url(name))
    assert not kept.has("a")
    kept.put("a", b"one")
    assert kept.has("a")


def test_a_folder_of_this_disk_that_is_not_there_is_no_missing_object(
    store: Server, name: str, tmp_path: Path
) -> None:
    kept = Objects(store.url(name))
    kept.put("a", b"one")
    with pytest.raises(FileNotFoundError):
        kept.fetch("a", tmp_path / "gone" / "a")
    assert not kept.failed


@pytest.mark.parametrize("do", ["read", "fetch", "delete", "has"])
def test_a_bucket_that_is_gone_is_no_missing_object(
    store: Server, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, do: str
) -> None:
    kept = Objects(store.url(name))

    class Gone:
        exceptions = kept._obstore.exceptions

        def __getattr__(self, _: str) -> object:
            raise FileNotFoundError("<Code>NoSuchBucket</Code>")

    monkeypatch.setattr(kept, "_obstore", Gone())
    asked = {"fetch": ("a", tmp_path / "a"), "delete": (["a"],)}.get(do, ("a",))
    with pytest.raises(objects.Refused, match="there is no bucket runs"):
        getattr(kept, do)(*asked)
    assert list(tmp_path.iterdir()) == []


WRONG = {
    "bucket": ({}, "there is no bucket nowhere; create it"),
    "secret": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, r"access is denied \(SignatureDoesNotMatch\)"),
    "key": ({"AWS_ACCESS_KEY_ID": "wrong"}, "access is denied"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_setting_is_told(
    store: Server, name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, said = WRONG[what]
    for key, value in changes.items():
        monkeypatch.setenv(key, value)
    url = store.url(name) if changes else f"s3://nowhere/{name}"
    with pytest.raises(ConfigError, match=f"^FEDCTL_RUN_URL: {url}: {said}") as told:
        Objects(url).check()
    assert SECRET not in str(told.value) and "\n" not in str(told.value)


def test_no_credentials(store: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(key)
    with pytest.raises(ConfigError, match=rf"{store.url(name)}: no credentials were given; set "):
        Objects(store.url(name)).check()


def test_no_server_is_told_within_bounds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    start = time.monotonic()
    with pytest.raises(EnvironmentFault, match=r"s3://b/x: the store cannot be used .*; check "):
        Objects("s3://b/x").check()
    assert time.monotonic() - start < patience.seconds(60)


@pytest.mark.parametrize(
    "url", ["/runs/mine", "s3:/b", "s3://", "s3://id:secret@b/x", "s3://b/x?key=1", "s3://b/../c"]
)
def test_no_url(url: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^FEDCTL_RUN_URL: is not s3://BUCKET/PATH or gs://"
    ) as e:
        Objects(url)
    assert "secret" not in str(e.value)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.startswith("obstore"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"s3://b/x needs obstore.*pip install -e '\.\[remote\]'"):
        Objects("s3://b/x")
