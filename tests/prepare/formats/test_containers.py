"""Files on disk: compressed, archived, damaged, hostile."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.errors import InputError
from finetune.prepare.formats import containers
from finetune.prepare.formats.containers import inner_name, members, open_member

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b'{"text": "a row of some length"}\n' * 2000


def read(path: Path, member: str | None = None) -> bytes:
    with open_member(path, member) as stream:
        return stream.read()


def zipped(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def packed(path: Path, data: bytes) -> Path:
    checked: dict[int, int] = {zstd.CompressionParameter.checksum_flag: 1}  # as the program zstd writes
    packers = {".gz": gzip.compress, ".zst": lambda data: zstd.compress(data, options=checked)}
    path.write_bytes(packers.get(path.suffix, bytes)(data))
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst"])
def test_plain_and_compressed_files_give_their_bytes(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / name, TEXT)
    assert members(path) == (None,)
    assert inner_name(path, None) == "rows.jsonl"
    assert read(path) == TEXT


def test_archive_gives_its_files_in_order(tmp_path: Path) -> None:
    junk = ["__MACOSX/._a.txt", "d/.DS_Store", "d/Thumbs.db", "d/", "desktop.ini"]
    path = zipped(tmp_path / "a.zip", {"d/b.txt": b"B", "a.txt": b"A", ".git/config": b"", **dict.fromkeys(junk, b"")})
    assert members(path) == (".git/config", "a.txt", "d/b.txt")
    assert read(path, "d/b.txt") == b"B"


def test_compressed_member_is_unpacked_too(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"rows.jsonl.gz": gzip.compress(TEXT)})
    assert inner_name(path, "rows.jsonl.gz") == "rows.jsonl"
    assert read(path, "rows.jsonl.gz") == TEXT


def test_members_of_several_gzip_streams_are_read_through(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"one ") + gzip.compress(b"two"))
    assert read(path) == b"one two"


def test_plain_file_can_be_seeked(tmp_path: Path) -> None:
    with open_member(packed(tmp_path / "a.parquet", b"0123"), None) as stream:
        stream.seek(2)
        assert stream.read() == b"23"


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.zst"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_truncated_file_is_an_error_that_names_it(tmp_path: Path, name: str, kept: float) -> None:
    path = packed(tmp_path / name, TEXT + os.urandom(5000))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(InputError, match=rf"{name} is truncated"):
        read(path)


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.zst"])
def test_damaged_file_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / name, os.urandom(5000))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    data[-6] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match=name):
        read(path)
    path.write_bytes(b"this was never compressed, whatever its name says")
    with pytest.raises(InputError, match=f"{name} is damaged, or its extension is wrong"):
        read(path)


def test_truncated_and_damaged_archives_are_named(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.txt": os.urandom(5000)})
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    with pytest.raises(InputError, match=r"a\.zip is damaged"):
        members(path)
    broken = bytearray(whole)
    broken[2000] ^= 0xFF
    path.write_bytes(broken)
    assert members(path) == ("a.txt",)
    with pytest.raises(InputError, match=r"a\.zip/a\.txt is damaged"):
        read(path, "a.txt")


@pytest.mark.parametrize(
    "name",
    ["../evil.txt", "a/../../evil.txt", "/etc/evil.txt", "C:/evil.txt", "C:evil.txt", "a\\..\\evil.txt", "//h/s/a"],
)
def test_member_that_would_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "a.zip", {"good.txt": b"", name: b"evil"})
    with pytest.raises(InputError, match=r"a\.zip: the member '.*evil.*|a\.zip: the member '//h.*outside"):
        members(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_an_archive_are_refused(tmp_path: Path, kind: int) -> None:
    entry = zipfile.ZipInfo("link.txt")
    entry.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(InputError, match=r"a\.zip: the member 'link\.txt' is a link or a device"):
        members(tmp_path / "a.zip")


def test_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"secret.txt": b"text"})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"secret\.txt' is encrypted"):
        members(path)


@pytest.mark.parametrize("name", ["inner.zip", "inner.tar", "inner.tar.gz", "x.7z"])
def test_archive_inside_an_archive_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="archive inside an archive"):
        members(zipped(tmp_path / "a.zip", {name: b"x"}))


def test_twice_the_same_member_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.txt", "two")
    with pytest.raises(InputError, match=r"two members named 'a\.txt'"):
        members(tmp_path / "a.zip")


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_MEMBERS", 3)
    path = zipped(tmp_path / "a.zip", {f"{number}.txt": b"" for number in range(4)})
    with pytest.raises(InputError, match=r"a\.zip has 4 members, more than 3"):
        members(path)


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.jsonl.zst"])
def test_decompression_bomb_is_stopped(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / name, bytes(containers.RATIO_FREE + 2**20))
    with open_member(path, None) as stream, pytest.raises(InputError, match=f"{name} unpacks to more than 250 times"):
        _drain(stream)


def _drain(stream: BinaryIO) -> None:
    while stream.read(2**20):
        pass


def test_bomb_in_an_archive_is_stopped_before_it_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.txt": bytes(containers.RATIO_FREE + 2**20)})
    with pytest.raises(InputError, match=r"a\.zip unpacks to more than 250 times its size"):
        members(path)


def test_archive_that_lies_about_its_sizes_gives_no_more_than_it_says(tmp_path: Path) -> None:
    data = zlib.compress(bytes(10_000), 9)[2:-4]
    name, crc = b"a.txt", zlib.crc32(bytes(100))
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 33, crc, len(data), 100, len(name), 0) + name + data
    entry = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 33, crc, len(data), 100, len(name), 0, 0, 0, 0, 0, 0
    ) + name  # fmt: skip
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(local), 0)
    path = tmp_path / "a.zip"
    path.write_bytes(local + entry + end)
    assert len(read(path, "a.txt")) == 100


def test_too_much_text_is_refused_whatever_its_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_UNPACKED", 1000)
    with pytest.raises(InputError, match="unpacks to more than 0 GiB"):
        read(packed(tmp_path / "a.gz", os.urandom(2000)))


def test_small_file_of_blanks_is_no_bomb(tmp_path: Path) -> None:
    assert len(read(packed(tmp_path / "a.gz", b" " * 10**6))) == 10**6


def test_folder_pipe_and_missing_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, reason in {"folder": "is a folder", "pipe.jsonl": "is a pipe", "none": "No such file"}.items():
        with pytest.raises(InputError, match=reason):
            members(tmp_path / name)
        with pytest.raises(InputError, match=name):
            read(tmp_path / name)


def test_device_is_refused() -> None:
    with pytest.raises(InputError, match="/dev/null is a device"):
        members(Path("/dev/null"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_named(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.txt", b"x")
    path.chmod(0)
    with pytest.raises(InputError, match=r"a\.txt cannot be read \(Permission denied\)"):
        read(path)


def test_missing_member_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.zip has no member b\.txt"):
        read(zipped(tmp_path / "a.zip", {"a.txt": b""}), "b.txt")


def test_error_of_the_reader_passes_unchanged(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.txt": b"x"})
    with pytest.raises(ValueError, match="mine"), open_member(path, "a.txt"):
        raise ValueError("mine")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=3000), cut=st.integers(1, 200), name=st.sampled_from(["a.gz", "a.zst", "a.zip"]))
def test_whatever_the_bytes_only_input_errors_come(tmp_path: Path, data: bytes, cut: int, name: str) -> None:
    path = tmp_path / name
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("a.txt", data)
    packs = {"a.gz": gzip.compress(data), "a.zst": zstd.compress(data), "a.zip": whole.getvalue()}
    for content in (data, packs[name][:-cut], data[:cut] + packs[name]):
        path.write_bytes(content)
        assert name in _problem(path)


def _problem(path: Path) -> str:
    """The message of what is wrong with a file; its name if nothing is."""
    try:
        for member in members(path):
            read(path, member)
    except InputError as error:
        return str(error)
    return path.name


def test_backslashes_of_windows_are_folders(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("yard\\test\\rows.jsonl", '{"text": "A mast"}\n')
    assert members(path) == ("yard/test/rows.jsonl",)
    with open_member(path, "yard/test/rows.jsonl") as raw:
        assert raw.read() == b'{"text": "A mast"}\n'
