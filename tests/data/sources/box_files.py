"""The same photographs with boxes in every format, as tests write them."""

import json

from fpn_jax.data.sources.coco import CocoSource
from tests.data.sources import annotated_files as write

SIZES = {"wide": (40, 20), "tall": (16, 30), "empty": (24, 24)}
"""Name of a photograph → its width and height."""
BOXES = {
    "wide": [("dog", (4, 2, 30, 18)), ("cat", (0, 0, 40, 20))],
    "tall": [("cat", (2, 5, 9, 29))],
    "empty": [],
}
"""Name of a photograph → class and x0, y0, x1, y1 of its boxes, continuous."""
IDS = {"cat": 17, "dog": 18}


def write_voc(folder):
    for name, boxes in BOXES.items():
        numbers = [(k, x0 + 1, y0 + 1, x1, y1) for k, (x0, y0, x1, y1) in boxes]
        write.xml(folder / f"{name}.xml", numbers, SIZES[name])


def write_table(path):
    lines = ["image,xmin,ymin,xmax,ymax,class"]
    for name, boxes in BOXES.items():
        lines += [f"{name}.jpg,{','.join(map(str, b))},{k}" for k, b in boxes]
        lines += [] if boxes else [f"{name}.jpg,,,,,"]
    path.write_text("\n".join(lines))


def write_yolo(folder, names="names:\n  0: cat\n  1: dog\n"):
    folder.mkdir()
    (folder / "data.yaml").write_text(names)
    for name, boxes in BOXES.items():
        width, height = SIZES[name]
        (folder / f"{name}.txt").write_text(
            "".join(
                f"{int(k == 'dog')} {(x0 + x1) / 2 / width:.6f} "
                f"{(y0 + y1) / 2 / height:.6f} {(x1 - x0) / width:.6f} "
                f"{(y1 - y0) / height:.6f}\n"
                for k, (x0, y0, x1, y1) in boxes
            )
        )


def labelme(name):
    width, height = SIZES[name]
    shapes = []
    for number, (k, (x0, y0, x1, y1)) in enumerate(BOXES[name]):
        # The corners of a rectangle may be in any order; a polygon has many.
        rectangle = {"shape_type": "rectangle", "points": [[x1, y0], [x0, y1]]}
        corners = [[x0, y0], [x1, (y0 + y1) / 2], [x0, y1]]
        polygon = {"shape_type": "polygon", "points": corners}
        shapes.append({"label": k} | (polygon if number else rectangle))
    return {"shapes": shapes, "imageHeight": height, "imageWidth": width}


def write_labelme(folder):
    folder.mkdir()
    for name in BOXES:
        (folder / f"{name}.json").write_text(json.dumps(labelme(name)))


def coco():
    images, annotations = [], []
    for number, (name, (width, height)) in enumerate(SIZES.items(), start=5):
        images.append(
            {"id": number, "file_name": f"{name}.jpg", "width": width, "height": height}
        )
        for k, (x0, y0, x1, y1) in BOXES[name]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": IDS[k],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
                }
            )
    # The order of the categories is not that of their numbers.
    categories = [{"id": number, "name": k} for k, number in IDS.items()][::-1]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(path, change=lambda found: None):
    found = coco()
    change(found)
    path.write_text(json.dumps(found))


def write_all(folder):
    """Writes the photographs, and their boxes in every format."""
    for name, size in SIZES.items():
        write.photograph(folder / "photos" / f"{name}.jpg", size)
    write_voc(folder / "voc")
    write_table(folder / "table.csv")
    write_yolo(folder / "yolo")
    write_labelme(folder / "labelme")
    write_coco(folder / "coco.json")


def named(source, name):
    """Returns the place of a photograph among the records."""
    (index,) = (i for i in range(len(source)) if source.id(i).endswith(name))
    return index


def coco_source(root, **given):
    given = {"annotations": "coco.json", "validate_fraction": 0.0} | given
    return CocoSource(root, "train", **given)
