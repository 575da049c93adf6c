"""Networks on a CPU against their authors' arithmetic, spandrel and OpenVINO."""
