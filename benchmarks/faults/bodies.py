"""Payloads of the input cases: files with a wrong type, path traversal texts, and invalid specs."""

from typing import Any

from benchmarks.faults.harness import API

DISGUISED = {
    "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
    "stars.png": b"SIMPLE  =                    T" + b" " * 2850,
    "jp2.png": b"\x00\x00\x00\x0cjP  \r\n\x87\n\x00\x00\x00\x14ftypjp2 ",
    "archive.png": b"PK\x03\x04" + bytes(100),
}

HOSTILE = {
    "up": "../../../../tmp/epochal-was-here",
    "absolute": "/etc/epochal-was-here",
    "backslash": "..\\..\\epochal-was-here",
    "nul": "a\x00b",
    "escaped twice": "%252e%252e%252f",
    "right to left": "\u202egnp.exe\u2066",
    "markup": "<script>alert(1)</script>\"'",
    "lines": "a\r\nSet-Cookie: a=b",
    "200 long": "n" * 200,
}
PATHS = [
    "/static/../settings.py", "/static/..%2f..%2fmodels/settings.py", "/static/%2e%2e/%2e%2e/models/settings.py",
    "/static/%252e%252e/settings.py", "/static//etc/passwd", "/static/..\\..\\settings.py", "/static/%00epochal.css",
    "/../../../etc/passwd", "//etc/passwd",
    *(f"{API}/experiments/{name}" for name in ("..%2f..", "%2e%2e/%2e%2e", "1%00", "1%252e", "..\\1", "n" * 300)),
    *(f"{API}/experiments/{name}/curves.png" for name in ("../1", "%2fetc%2fpasswd", "1%00")),
]  # fmt: skip


def conv(**changes: Any) -> dict[str, Any]:
    return {"channels": 8, "kernel_size": 3, "padding": 1, **changes}


def cnn(*convs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"name": "cnn", "blocks": [{"convs": list(convs) or [conv()], "pool": None}], **changes}


MEMORY_BOMBS = {
    "a million channels": {"model": cnn(conv(channels=1_000_000))},
    "ten thousand layers": {"model": {"name": "cnn", "blocks": [{"convs": [conv()] * 100, "pool": None}] * 100}},
    "batch 1e9": {"model": "baseline", "batch_size": 10**9},
    "the widest and deepest": {
        "model": {"name": "cnn", "blocks": [{"convs": [conv(channels=4096)] * 32, "pool": None}] * 32}
    },
    "a head of 65,536 x 65,536": {"model": cnn(head={"hidden": [65_536] * 16})},
    "512 pixels, 4,096 channels": {"model": cnn(conv(channels=4096), input_size=512), "batch_size": 4096},
    "a large known network": {"model": {"name": "densenet121", "input_size": 512}, "batch_size": 16_384},
}  # fmt: skip

BAD_JSON: tuple[bytes, ...] = (
    b"", b"{", b"null", b"[]", b"3", b'"text"', b"\xff\xfe{}",
    b'{"model": "baseline", "optimizer": {"lr": NaN}}', b'{"model": "baseline", "optimizer": {"lr": Infinity}}',
    b'{"model": "baseline", "optimizer": {"lr": 1e309}}', b'{"model": "baseline", "optimizer": {"lr": -1}}',
    b'{"model": "baseline", "epochs": -3}', b'{"model": "baseline", "epochs": true}',
    b'{"model": "baseline", "epochs": 1.5}',
    b'{"model": "baseline", "epochs": "3"}', b'{"model": "baseline", "batch_size": 0}',
    b'{"model": "baseline", "seed": -1}',
    b'{"model": "baseline", "seed": 99999999999999999999999}',
    b'{"model": "baseline", "epochs": ' + b"9" * 10_000 + b"}",
    b'{"model": "baseline", "colour": "red"}', b'{"model": "baseline", "__class__": {"a": 1}}',
    b'{"model": "baseline", "epochs": 1, "epochs": 2}', b'{"model": "baseline", "name": "\\ud800"}',
    b"[" * 100_000, b'{"model":' * 1000 + b"1" + b"}" * 1000, b'{"tags": [' + b'"a",' * 100_000 + b'"a"]}',
    b'{"model": "baseline", "name": "' + b"a" * 900_000 + b'"}',
    b'{"model": "baseline", "name": "' + b"a" * 2_000_000 + b'"}',
)  # fmt: skip
BAD_YAML: tuple[bytes, ...] = (
    b"model: &a baseline\nname: *a", b"a: &a [1,1,1,1,1,1,1,1,1]\n" + b"b: &b [*a,*a,*a,*a,*a,*a,*a,*a]\n" * 9,
    b"model: !!python/object/apply:os.system ['touch /tmp/epochal-was-here']", b"model: !!python/name:os.system",
    b"model: !custom baseline", b"model: baseline\nepochs: .nan", b"model: baseline\noptimizer: {lr: .inf}",
    b"model: baseline\noptimizer: {lr: 1e999}", b"--- {model: baseline}\n--- {model: wide}",
    b"model: baseline\nmodel: wide",
    b"<<: {model: baseline}", b"[" * 20_000, b"model: [", b"model: baseline\nname: \x00", b"a: " + b"x" * 300_000,
)  # fmt: skip
