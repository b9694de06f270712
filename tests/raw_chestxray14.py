"""A small ChestX-ray14 in the layout of the NIH, with generated images."""

import pathlib

import numpy as np
from PIL import Image

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
ROWS = (
    "00000001_000.png,Cardiomegaly,0,1,57,M,PA,2682,2749,0.143,0.143",
    "00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.143,0.143",
    "00000002_000.png,No Finding,0,2,80,F,AP,2500,2048,0.171,0.171",
    "00000003_000.png,Hernia|Infiltration,0,3,74,F,PA,2500,2048,0.168,0.168",
)
BOXES = (
    "Image Index,Finding Label,Bbox [x,y,w,h],,,",
    "00000003_000.png,Infiltrate,100.5,200,300,400",
)


class RawData:
    """Folder with csv, lists, boxes and images, each of which a test can change."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.table(HEADER, *ROWS)
        self.lists([row.split(",")[0] for row in ROWS[:3]], ["00000003_000.png"])
        self.write("BBox_List_2017.csv", *BOXES)
        for i, row in enumerate(ROWS):
            self.image(f"images_00{1 + i % 2}/images/{row.split(',')[0]}", seed=i)

    def write(self, name: str, *lines: str) -> None:
        """Writes a text file."""
        (self.folder / name).write_text("\n".join(lines) + "\n")

    def table(self, *lines: str) -> None:
        """Writes the csv."""
        self.write("Data_Entry_2017_v2020.csv", *lines)

    def lists(self, train_val, test) -> None:
        """Writes the split lists."""
        self.write("train_val_list.txt", *train_val)
        self.write("test_list.txt", *test)

    def image(self, name: str, seed: int = 0, size: int = 64) -> pathlib.Path:
        """Writes a random radiograph."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 200, (size, size), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path
