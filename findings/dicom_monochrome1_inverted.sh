#!/usr/bin/env bash
# Question: a chest X-ray is stored as MONOCHROME1, where 0 is white. Does SimpleITK return the stored pixels, as
# pydicom does, so that whoever reads it inverts it?
# Guess: yes; a reader of pixels leaves that to the display, and the tag tells what is to be done.
# Seen with SimpleITK 2.5.7, pydicom 3.0.2: no. SimpleITK inverts the pixels (4095 - x for 12 bits), and the image's
# metadata still say MONOCHROME1. Code that inverts by the tag, which is right after pydicom, makes negatives of these
# images after SimpleITK, and of no others. No warning. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check pydicom==3.0.2 SimpleITK==2.5.7 numpy==2.4.6
"$folder/env/bin/python" -W error - "$folder/image.dcm" <<'PY'
import sys

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

pixels = np.array([[0, 100, 2048, 4095]] * 2, dtype=np.uint16)
rows = {}
for kind in ("MONOCHROME1", "MONOCHROME2"):
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, kind
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.add_new("PixelData", "OW", pixels.tobytes())
    image.save_as(sys.argv[1], enforce_file_format=True)
    read = SimpleITK.ReadImage(sys.argv[1])
    tag = read.GetMetaData("0028|0004").strip()
    rows[kind] = SimpleITK.GetArrayFromImage(read).squeeze()[0].tolist()
    by_pydicom = pydicom.dcmread(sys.argv[1]).pixel_array[0].tolist()
    print(f"{kind}: SimpleITK {rows[kind]}, its tag {tag}; pydicom {by_pydicom}")
    assert tag == kind and by_pydicom == pixels[0].tolist()
assert rows == {"MONOCHROME1": (4095 - pixels[0]).tolist(), "MONOCHROME2": pixels[0].tolist()}
PY
