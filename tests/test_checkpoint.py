import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from secateurs import checkpoint
from secateurs.errors import InputError

TENSORS = {
    "float": torch.arange(6.0).view(2, 3),
    "double": torch.tensor(0.1, dtype=torch.float64),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "empty": torch.empty(0, 4),
}
METADATA = {"epoch": 3, "history": [{"loss": 0.1, "phase": "search"}], "done": False}


def test_what_was_saved_is_loaded_to_the_bit(tmp_path):
    path = tmp_path / "new" / "folder" / "state.safetensors"
    checkpoint.save(path, TENSORS, METADATA)
    tensors, metadata = checkpoint.load(path)
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert os.listdir(path.parent) == [path.name]  # noqa: PTH208 (names are what is compared)


def test_views_and_transposes_are_saved_as_they_look(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    checkpoint.save(tmp_path / "x", {"turned": whole.T, "row": whole[1]}, {})
    tensors, _ = checkpoint.load(tmp_path / "x")
    assert torch.equal(tensors["turned"], whole.T)
    assert torch.equal(tensors["row"], whole[1])


def test_a_file_is_replaced_whole(tmp_path):
    for epoch in (1, 2):
        checkpoint.save(tmp_path / "x", {"w": torch.full((2,), epoch)}, {"epoch": epoch})
    tensors, metadata = checkpoint.load(tmp_path / "x")
    assert metadata == {"epoch": 2}
    assert tensors["w"].tolist() == [2, 2]


def test_who_holds_the_old_file_keeps_it(tmp_path):
    # the new file is renamed into place: the old one is never written into
    checkpoint.save(tmp_path / "x", {"w": torch.zeros(2)}, {"epoch": 1})
    (tmp_path / "held").hardlink_to(tmp_path / "x")
    checkpoint.save(tmp_path / "x", {"w": torch.ones(2)}, {"epoch": 2})
    assert checkpoint.load(tmp_path / "held")[1] == {"epoch": 1}
    assert checkpoint.load(tmp_path / "x")[1] == {"epoch": 2}


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from secateurs import checkpoint
from secateurs.errors import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    checkpoint.save(Path(sys.argv[1]), {"w": torch.ones(100_000)}, {})
except InputError as err:
    print(err)
"""


def test_a_full_disk_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, TENSORS, METADATA)
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"cannot write {path}: ")
    assert "choose a folder that is writable and has room" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_failing_writer_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "state"
    path.write_text("old")

    def half(temporary):
        temporary.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.write_atomic(path, half)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*choose a folder that is writable"):
        checkpoint.save(tmp_path / "file" / "state", TENSORS, METADATA)


def damaged(path, kind):
    if kind == "missing":
        return
    if kind == "folder":
        path.mkdir()
        return
    if kind == "foreign tensors":
        save_file({"w": torch.ones(2)}, path)
        return
    if kind == "foreign metadata":
        save_file({"w": torch.ones(2)}, path, metadata={"secateurs": "not json"})
        return
    if kind == "metadata without keys":
        save_file({"w": torch.ones(2)}, path, metadata={"secateurs": "[1]"})
        return
    checkpoint.save(path, TENSORS, METADATA)
    whole = path.read_bytes()
    content = {
        "empty": b"",
        "junk": b"\x80\x04junk" * 100,
        "truncated header": whole[:40],
        "truncated tensors": whole[:-3],
        "no end": whole + b"more",
    }[kind]
    path.write_bytes(content)


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "folder",
        "empty",
        "junk",
        "truncated header",
        "truncated tensors",
        "no end",
        "foreign tensors",
        "foreign metadata",
        "metadata without keys",
    ],
)
def test_damaged_and_foreign_files_give_one_clear_line(tmp_path, kind):
    path = tmp_path / "state.safetensors"
    damaged(path, kind)
    with pytest.raises(InputError, match="secateurs") as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_never_executed(tmp_path):
    path, witness = tmp_path / "state.safetensors", tmp_path / "executed"

    class Bomb:
        def __reduce__(self):
            return (open, (str(witness), "w"))

    torch.save({"w": Bomb()}, path)
    with pytest.raises(InputError, match="damaged, truncated or foreign"):
        checkpoint.load(path)
    assert not witness.exists()


def test_groups_are_kept_apart():
    groups = {
        "network": {"a/b": torch.zeros(1), "w": torch.ones(1)},
        "network2": {"w": torch.full((1,), 2.0)},
    }
    flat = checkpoint.nest(**groups)
    for group, tensors in groups.items():
        assert checkpoint.unnest(flat, group).keys() == tensors.keys()
    assert float(checkpoint.unnest(flat, "network")["w"]) == 1
    assert checkpoint.unnest(flat, "absent") == {}
