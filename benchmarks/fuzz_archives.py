"""Random damage to model files and checkpoints, for ``fuzz.py``: bytes, zip members, npy and JSON headers, arrays."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from functools import cache

import numpy as np
from fuzz_inputs import Corpus, Generator, damaged_bytes, damaged_json

BOMB = 200 * 2**20  # bytes of zeros that a bomb unpacks to


def mutated_model(corpus: Corpus, generator: Generator) -> tuple[str, bytes]:
    """(the kind of damage, a damaged model file)."""
    index = int(generator.integers(len(corpus.files)))
    return _mutated(corpus.files[index], corpus.members[index], generator)


def mutated_checkpoint(corpus: Corpus, generator: Generator) -> tuple[int, bytes]:
    """(which model's, a damaged checkpoint)."""
    which, content = corpus.checkpoints[generator.integers(len(corpus.checkpoints))]
    with np.load(io.BytesIO(content)) as file:
        members = {name: file[name] for name in file.files}
    return which, _mutated(content, members, generator)[1]


def _mutated(content: bytes, sound: dict[str, np.ndarray], generator: Generator) -> tuple[str, bytes]:
    kind = str(generator.choice(["bytes", "zip", "array", "header", "text"], p=[0.2, 0.15, 0.25, 0.3, 0.1]))
    members = dict(sound)
    if kind == "bytes":
        return kind, damaged_bytes(content, generator)
    if kind == "zip":
        return kind, _damaged_zip(members, generator)
    if kind == "array":
        name = str(generator.choice([n for n in members if n != "header"]))
        members[name] = _damaged_array(members[name], generator)
    elif kind == "header":
        header = json.loads(members["header"].tobytes())
        for _ in range(generator.integers(1, 3)):
            header = damaged_json(header, generator)
        members["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    else:
        members["header"] = np.frombuffer(_damaged_text(members["header"].tobytes(), generator), dtype=np.uint8)
    return kind, _npz(members)


def _damaged_text(text: bytes, generator: Generator) -> bytes:
    kind = generator.integers(5)
    if kind == 0:
        return b"[" * 100_000
    if kind == 1:
        return text.replace(
            b": ", b": " + str(generator.choice(["9" * 5000, "1e999", "-", "NaN", "[", '"'])).encode(), 1
        )
    if kind == 2:
        return text.decode().encode(str(generator.choice(["utf-16", "utf-32", "utf-8-sig"])))
    return damaged_bytes(text, generator)


def _damaged_array(array: np.ndarray, generator: Generator) -> np.ndarray:
    kind = generator.integers(9)
    if kind == 0:
        types = ("f2", "f4", ">f8", "g", "i8", "u1", "c16", "?", "U3", "S2", "M8[s]", "V4", "F")
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return array.astype(types[generator.integers(len(types))])
            except (TypeError, ValueError):
                return np.zeros(array.shape, dtype="V4")
    if kind == 1:
        shapes: list[tuple[int, ...]] = [
            (),
            (0,),
            (1,),
            array.shape[::-1],
            (*array.shape, 1),
            (0, 0),
            (3, 3),
            (2, 2, 2),
        ]
        return np.resize(array, shapes[generator.integers(len(shapes))])
    if kind == 2:
        return np.asfortranarray(array)
    if kind == 3:
        return np.zeros_like(array)
    if array.dtype.kind != "f" or array.size == 0:
        return array[::-1]
    out = array.copy()
    values = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e300, -1e300, 1e-300, 1e38, 1e154, 1e-45)
    with np.errstate(all="ignore"):
        if kind < 7:
            out.flat[generator.integers(out.size)] = out.dtype.type(values[generator.integers(len(values))])
        elif kind == 7:
            out = -out
        else:
            out = (out * out.dtype.type(10.0 ** int(generator.integers(-200, 200)))).astype(out.dtype)
    return out


def _npz(members: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **members)  # damage may have made objects; reading refuses them
    return file.getvalue()


def _damaged_zip(members: dict[str, np.ndarray], generator: Generator) -> bytes:
    """The archive written anew: members left out, doubled, renamed, compressed, bombs, false npy headers."""
    kind, file = generator.integers(8), io.BytesIO()
    if kind == 2:
        return _bomb(bool(generator.integers(2)))
    victim = str(generator.choice(list(members)))
    packing = [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA][generator.integers(3)]
    with zipfile.ZipFile(file, "w", packing if kind in (0, 1) else zipfile.ZIP_STORED) as archive:
        for name, array in members.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array)
            content, stored = buffer.getvalue(), f"{name}.npy"
            if name == victim:
                if kind == 3:
                    continue
                elif kind == 4:
                    stored = str(generator.choice([name, f"{name}.npy.npy", "header.npy", "../x.npy", "x/", "ü.npy"]))
                elif kind == 5:
                    content = _false_npy(array, generator)
                elif kind == 6:
                    content = damaged_bytes(content[:128], generator) + content[128:]
                elif kind == 7:
                    content = generator.bytes(int(generator.integers(0, 200)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "Duplicate name"
                archive.writestr(stored, content)
    return damaged_bytes(file.getvalue(), generator) if kind == 1 else file.getvalue()


@cache
def _bomb(as_header: bool) -> bytes:
    """A small archive with a member of BOMB zeros, written piece by piece."""
    file, start = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(start, {"descr": "|u1", "fortran_order": False, "shape": (BOMB,)})
    name = "header.npy" if as_header else "mean.0.npy"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as member:
        member.write(start.getvalue())
        for _ in range(BOMB // 2**20):
            member.write(bytes(2**20))
    return file.getvalue()


def _false_npy(array: np.ndarray, generator: Generator) -> bytes:
    """An npy member whose header says another shape or type than its data has."""
    shapes = [(10**9, 10**9), (10**10,), (-1,), (2**63,), (0,), (3, 3), (10**9,)]
    types = ("<f8", "|O", "<U99999999", "<c16", "|V100000000", "<f8")
    buffer = io.BytesIO()
    shape, kind = shapes[generator.integers(len(shapes))], types[generator.integers(len(types))]
    if generator.random() < 0.2:
        header = str(generator.choice(["{", "(" * 3000, "{'descr': 1}", "None", "'a'*3", "{'shape': (1L,)}", "x\0y"]))
        text = header.encode().ljust(117) + b"\n"
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + array.tobytes()
    np.lib.format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + array.tobytes()
