"""From a folder of photos to a verdict in two commands: Fashion-MNIST's images as PNG files, with junk among them.

    python -m benchmarks.own_images FOLDER [--images 6000]

It writes the folder, starts a lab, and runs `epochal data add` and `epochal submit --watch` as a person would; what
they print is printed. docs/own-images.md has a transcript.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from models.data.dataset import load_dataset
from models.settings import Settings
from service.lab.lab import Lab

JUNK = {
    ".DS_Store": b"\0\0\0\1Bud1",
    "Thumbs.db": b"\xd0\xcf\x11\xe0",
    "__MACOSX/._Bag": b"\0\5\26\7",
    ".ipynb_checkpoints/look-checkpoint.ipynb": b"{}",
    "README.txt": b"my clothes",
    "Bag/notes.md": b"# bags",
}


def write_folder(folder: Path, num_images: int) -> None:
    """Export images as class folders, with what other programs leave beside them and two broken files."""
    dataset = load_dataset("fashion-mnist", Settings())
    for place in np.linspace(0, len(dataset.train_labels) - 1, num_images).astype(int):
        name = dataset.info.class_names[int(dataset.train_labels[place])].replace("/", "-")
        target = folder / name / f"IMG_{place:05d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset.train_images[place, 0]).save(target)
    first = next((folder / "Bag").glob("*.png"))
    (folder / "Bag" / "cut off.png").write_bytes(first.read_bytes()[:150])
    (folder / "Coat" / "empty.jpg").write_bytes(b"")
    for name, content in JUNK.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def run(url: str, *arguments: str) -> float:
    """Run a command as it would be typed; returns its seconds."""
    print(f"$ epochal {' '.join(arguments)}", flush=True)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "epochal", *arguments, "--url", url], check=True)
    seconds = time.perf_counter() - began
    print(f"[{seconds:.1f} s]\n", flush=True)
    return seconds


def main() -> None:
    """Write the folder, start a lab, run the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the images are written; it must not exist")
    parser.add_argument("--images", type=int, default=6000)
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True)
    write_folder(chosen.folder, chosen.images)
    files = sum(path.is_file() for path in chosen.folder.rglob("*"))
    print(f"{files:,} files in {chosen.folder.name}\n")
    with tempfile.TemporaryDirectory(prefix="lab-") as data_dir:
        settings = Settings(data_dir=Path(data_dir) / "data", port=0, workers=1)
        with Lab(settings, say=lambda text: None) as lab:
            name = chosen.folder.name
            run(lab.url, "data", "add", str(chosen.folder))
            run(lab.url, "submit", "baseline", "--set", f"dataset.name={name}", "--set", "epochs=3", "--watch")


if __name__ == "__main__":
    main()
