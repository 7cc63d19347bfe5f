#!/usr/bin/env bash
# Question: a radiograph of 12 bits comes with a VOI LUT of 4,096 entries of 8 bits, which maps it for the screen. Does
# pydicom look up each pixel's own entry?
# Guess: yes; the table's entries have 8 bits, the index into it has 12.
# Seen with pydicom 3.0.2, numpy 2.4.6: no. apply_voi_lut keeps the index in the type of the entries, so that it wraps
# at 256: white (4095) gets the entry of 255 and becomes nearly black, and no pixel is brighter than 15 of 255. The same
# table with entries of 16 bits is right, and so is apply_modality_lut. No warning. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check pydicom==3.0.2 numpy==2.4.6
"$folder/env/bin/python" -W error - "$folder/image.dcm" <<'PY'
import sys

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

pixels = np.array([[0, 100, 255, 256, 2048, 4095]], dtype=np.uint16)


def looked_up(sequence: str, bits: int) -> list[int]:
    """Write an image whose table has 4,096 entries of so many bits, read it, and apply the table."""
    table = np.arange(4096) >> (12 - min(bits, 12))
    lut, image = Dataset(), Dataset()
    lut.add_new("LUTDescriptor", "US", [4096, 0, bits])
    lut.add_new("LUTData", "US", table.tolist())
    if sequence == "ModalityLUTSequence":
        lut.ModalityLUTType = "US"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.add_new("PixelData", "OW", pixels.tobytes())
    setattr(image, sequence, [lut])
    image.save_as(sys.argv[1], enforce_file_format=True)
    read = pydicom.dcmread(sys.argv[1])
    apply = apply_modality_lut if sequence == "ModalityLUTSequence" else apply_voi_lut
    return [int(value) for value in apply(read.pixel_array, read).ravel()]


right = [int(value) >> 4 for value in pixels.ravel()]
print(f"pixels {pixels.ravel().tolist()}, as 8 bits {right}")
for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
    given = {bits: looked_up(sequence, bits) for bits in (8, 16)}
    print(f"{sequence}: entries of 8 bits give {given[8]}, of 16 bits {given[16]}")
    wrapped = [0, 6, 15, 0, 0, 15]
    assert given[8] == (wrapped if sequence == "VOILUTSequence" else right) and given[16] == pixels.ravel().tolist()
PY
