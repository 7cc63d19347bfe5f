#!/usr/bin/env bash
# Question: a colour JPEG is read as grey by Pillow, once by draft("L", size), once by convert("L"). Are the pixels
# equal?
# Guess: yes, or apart by 1 from rounding.
# Seen with Pillow 13.0.0: draft("L") takes the luma channel of the file as it is; convert("L") makes RGB first, whose
# clipping and chroma upsampling change saturated places by several grey levels, such as a coloured label burnt into
# an image (here by 7). OpenCV 5.0.0 agrees with draft("L"). Grey images stored as RGB are equal. Fails if that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check pillow==13.0.0 numpy==2.4.6 \
  opencv-python-headless==5.0.0.93
"$folder/env/bin/python" - <<'PY'
import io

import cv2
import numpy as np
from PIL import Image, ImageDraw


def readings(image: Image.Image) -> tuple[int, int]:
    """Largest difference of convert("L"), and of OpenCV, from draft("L")."""
    file = io.BytesIO()
    image.save(file, "jpeg", quality=90)
    drafted = Image.open(io.BytesIO(file.getvalue()))
    drafted.draft("L", drafted.size)
    luma = np.asarray(drafted).astype(int)
    converted = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("L")).astype(int)
    opencv = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_GRAYSCALE).astype(int)
    return abs(converted - luma).max(), abs(opencv - luma).max()


ramp = np.tile(np.linspace(0, 255, 256).astype(np.uint8), (256, 1))
film = Image.fromarray(np.stack([ramp] * 3, axis=2))
labelled = film.copy()
ImageDraw.Draw(labelled).text((20, 20), "LEFT", fill=(255, 0, 0), font_size=40)
ImageDraw.Draw(labelled).text((20, 120), "PORTABLE", fill=(0, 0, 255), font_size=40)
grey, colour = readings(film), readings(labelled)
print(f"grey film stored as RGB: {grey[0]} (OpenCV {grey[1]}); with coloured labels: {colour[0]} (OpenCV {colour[1]})")
assert max(grey) <= 1 and colour[1] == 0 and colour[0] >= 5
PY
