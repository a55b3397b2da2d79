"""Predictions of trained networks, by onnxruntime."""

import os

# From its import on, onnxruntime for Linux reports each process and session to its maker and keeps an identifier of the
# machine in the user's cache folder. This stops all of it, if set before the import: its own
# disable_telemetry_events() comes too late (https://github.com/microsoft/onnxruntime/pull/27379).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
