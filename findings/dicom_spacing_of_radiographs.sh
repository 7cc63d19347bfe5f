#!/usr/bin/env bash
# Question: a chest X-ray (class CR or DX) can carry Pixel Spacing, which may be calibrated to the patient, Imager
# Pixel Spacing, which is that of the detector, or both. Which one is the spacing of the image that SimpleITK reads?
# Guess: Pixel Spacing, as in CT; that of the detector where it is missing.
# Seen with SimpleITK 2.5.7, pydicom 3.0.2: Pixel Spacing is ignored. With both, the spacing is the detector's; with
# Pixel Spacing alone it is 1 mm, without a warning. A CT image and a secondary capture with the same attributes have
# their Pixel Spacing. Heart sizes in mm, and resampling to a common spacing, go by another scale. Fails if that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PY'
from importlib.metadata import version

import numpy as np
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

print(*(f"{name} {version(name)}" for name in ("SimpleITK", "pydicom")))
classes = {"CR": ComputedRadiographyImageStorage, "DX": DigitalXRayImageStorageForPresentation,
           "CT": CTImageStorage, "SC": SecondaryCaptureImageStorage}
carried = {"Pixel Spacing": {"PixelSpacing": [0.1, 0.1]}, "Imager": {"ImagerPixelSpacing": [0.14, 0.14]}}
carried["both"] = carried["Pixel Spacing"] | carried["Imager"]


def spacing(kind: str, attributes: dict) -> float:
    image, image.file_meta = Dataset(), FileMetaDataset()
    image.SOPClassUID, image.SOPInstanceUID = classes[kind], generate_uid(entropy_srcs=[kind, str(attributes)])
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.SamplesPerPixel, image.PhotometricInterpretation, image.Rows, image.Columns = 1, "MONOCHROME2", 8, 8
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.PixelData = np.zeros((8, 8), np.uint16).tobytes()
    for name, value in attributes.items():
        setattr(image, name, value)
    image.save_as("image.dcm", enforce_file_format=True)
    return SimpleITK.ReadImage("image.dcm").GetSpacing()[0]


seen = {kind: {name: spacing(kind, attributes) for name, attributes in carried.items()} for kind in classes}
for kind, values in seen.items():
    print(f"{kind}: {values}")
assert seen["CR"] == seen["DX"] == {"Pixel Spacing": 1.0, "Imager": 0.14, "both": 0.14}
assert seen["CT"]["Pixel Spacing"] == seen["CT"]["both"] == seen["SC"]["Pixel Spacing"] == seen["SC"]["both"] == 0.1
PY
