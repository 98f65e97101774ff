"""Images as files, and what the loader makes of them."""

from __future__ import annotations

import numpy as np
import pydicom
import torch
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from medvl.transforms import LoadStudyImage

# Asymmetric in every way: neither a flip nor a transposition leaves it as it is.
PICTURE = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20 + np.uint8([[0, 1, 0, 0]])
RGB = np.stack([PICTURE, PICTURE[::-1], PICTURE[:, ::-1]], axis=-1)
LUMINANCE = RGB @ np.array([0.299, 0.587, 0.114])


def write_dicom(path, pixels, photometric="MONOCHROME2", **tags):
    """A DICOM file with little more than its pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = tags.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = tags.pop("BitsStored", dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return str(path)


def load(path, **options):
    image = LoadStudyImage(**options)(path)
    assert type(image) is torch.Tensor
    assert image.dtype == torch.float32
    assert image.shape[0] == 1
    return image[0].numpy()


VOLUME = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def write_series(folder, volume, step=(0, 0, 2.0), **tags):
    """The slices of a RAS volume as a scanner stores them: rows to the back, columns to the left, head last."""
    folder.mkdir()
    tags.setdefault("SeriesInstanceUID", generate_uid())
    slices = volume[::-1, ::-1].transpose(2, 1, 0)
    for number, pixels in enumerate(slices):
        write_dicom(
            folder / f"{(number * 7) % 11}.dcm",
            np.ascontiguousarray(pixels),
            **{
                "InstanceNumber": number + 1,
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "ImagePositionPatient": [number * value for value in step],
                "PixelSpacing": [0.5, 0.5],
                **tags,
            },
        )
    return folder


def group(**tags):
    dataset = pydicom.Dataset()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def write_frames(path, volume, order, **frame):
    """A RAS volume as one enhanced file: slices as :func:`write_series` has them, in any order."""
    slices = volume[::-1, ::-1].transpose(2, 1, 0)[order]
    dataset = pydicom.dcmread(write_dicom(path, np.ascontiguousarray(slices[0])))
    dataset.NumberOfFrames = len(order)
    dataset.PixelData = np.ascontiguousarray(slices).tobytes()
    dataset.SharedFunctionalGroupsSequence = [
        group(
            PlaneOrientationSequence=[group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[group(PixelSpacing=[0.5, 0.5])],
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        group(
            PlanePositionSequence=[group(ImagePositionPatient=[0, 0, 2.0 * number])],
            PixelValueTransformationSequence=[group(RescaleSlope=number + 1, RescaleIntercept=-10)],
            **frame,
        )
        for number in order
    ]
    dataset.save_as(path)
    return str(path)
