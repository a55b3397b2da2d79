"""Documents of a lab whose every text was chosen by somebody hostile, by the address that they are read from."""

from typing import Any

MOMENT = "2026-01-01T00:00:00+00:00"


def documents(text: str) -> dict[str, Any]:
    """What GET answers for studies, datasets, models, comparisons and what went wrong."""
    row = {
        "key": text, "title": text, "kind": "ensemble", "status": "completed", "reason": text, "shortened": text,
        "epochs": 30,
        "val_accuracy": {"mean": 0.681, "deviation": 0.012}, "published": {"val_accuracy": 0.65}, "seconds": 61.0,
        "difference": {"points": 7.8, "interval": [6.0, 9.6], "is_noise": True, "sentence": text},
    }  # fmt: skip
    study = {
        "id": 1, "title": text, "question": text, "status": "completed", "reason": text, "created_at": MOMENT,
        "progress": {"runs": 3, "ended": 3, "seconds_left": 60.0}, "budget_seconds": 60.0, "spent_seconds": 50.0,
        "rows": [row, row], "search": None,
        "robustness": [
            {"row": text, "title": text, "clean": 0.6, "accuracy": {"gaussian_noise": [0.5]}, "reason": text,
             "num_images": 100}
        ],
    }  # fmt: skip
    version = {"version": 1, "status": text, "num_images": 7, "created_at": MOMENT, "fingerprint": text}
    dataset = {
        "name": text, "status": "ready", "reason": {"detail": text}, "num_images": 7, "image_size": 32, "layout": text,
        "fingerprint": text, "classes": [{"name": text, "train": 3, "validation": None, "test": 4}],
        "warnings": [text], "skipped": [{"file": text, "reason": text}], "num_skipped": 1,
        "versions": [version, version],
    }  # fmt: skip
    listed = {"name": text, "built_in": False, "status": text, "version": 1}
    finding = {"severity": text, "sentence": text, "image_ids": list(range(40)), "num_images": 40}
    model = {
        "name": text, "version": 1, "experiment_id": 1, "weights": text, "epoch": 3, "created_at": MOMENT,
        "created_by": text, "withdrawn_at": None, "serving": True,
    }  # fmt: skip
    test = {
        "id": 1, "status": text, "model": text, "dataset": text, "options": {"lr_min": 1e-6, "lr_max": 1.0},
        "suggestion": {"lr": 0.1, "why": text}, "created_at": MOMENT, "reason": None,
    }  # fmt: skip
    figures = {"score": 0.9, "wobble_accuracy": 0.01, "wobble_loss": 0.02, "kept": 0.95}
    return {
        "/studies": {"items": [study], "next": None, "total": 1},
        "/studies/1": study,
        "/datasets": {"datasets": [listed]},
        "/datasets/photos": dataset,
        "/datasets/photos/health": {"status": "ready", "reason": None, "report": {"findings": [finding]}},
        "/models": {"items": [model], "next": None, "total": 1},
        "/models/cats": model,
        "/models/cats/versions": {"items": [model], "next": None},
        "/learning-rate-tests": {"items": [test], "next": None, "total": 1},
        "/experiments/1/confusion": {
            "most_confused": [{"label": text, "predicted": text, "count": 3, "share": 0.1}],
        },
        "/experiments/1/mistakes": {
            "mistakes": [{"index": 7, "label": text, "predicted": text, "probability": 0.9}],
        },
        "/experiments/1/stability": {"sentence": text, "stability": [figures, None]},
    }
