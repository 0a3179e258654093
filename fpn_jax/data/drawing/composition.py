"""An animal in its scene: expression, shadow, relief, and the photograph of it all."""

import math

import cv2
import numpy as np

from fpn_jax.data.drawing import animals, scenery, strokes
from fpn_jax.data.drawing.strokes import Placed, Pose


def pose(
    rng: np.random.Generator,
    scale: float,
    low: tuple[float, float],
    high: tuple[float, float],
) -> Pose:
    """Returns a head anywhere in a part of the image, turned a little.

    Args:
      rng: Source of the draws.
      scale: Half the width of the head, as a fraction of the image side.
      low: Least x and y of its middle, fractions of the image side.
      high: Greatest x and y of its middle.
    """
    roll = math.radians(min(max(rng.normal(0, 14), -35), 35))
    return Pose(
        centre=(rng.uniform(low[0], high[0]), rng.uniform(low[1], high[1])),
        scale=scale,
        roll=roll,
        yaw=math.radians(rng.uniform(-24, 24)),
        pitch=math.radians(rng.uniform(-10, 10)),
        stretch=rng.uniform(0.94, 1.06),
        perspective=(rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05)),
    )


def expression(rng: np.random.Generator, roll: float) -> animals.Expression:
    """Returns what an animal does; its body hangs down, whatever its head does.

    Args:
      rng: Source of the draws.
      roll: Rotation of the head in the image, radians.
    """
    return animals.Expression(
        lean=-rng.uniform(0.5, 0.9) * roll,
        tail=rng.uniform(-1, 1),
        gaze=(rng.uniform(-0.04, 0.04), rng.uniform(-0.04, 0.04)),
        tongue=rng.random() < 0.4,
        ears=(rng.uniform(-0.12, 0.12), rng.uniform(-0.12, 0.12)),
    )


def head_extent(figure: animals.Figure, pose: Pose) -> np.ndarray:
    """Returns the box of the head with its ears, float64 `[4]`, x0, y0, x1, y1.

    Args:
      figure: The animal.
      pose: Of the head.

    Returns:
      Fractions of the image side; below 0 and above 1 outside of the image.
    """
    head = [layer.base for layer in figure.layers if layer.part in ("head", "ear")]
    points = strokes.project(head, pose)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def head_box(figure: animals.Figure, pose: Pose, size: int) -> np.ndarray:
    """Returns the part of the head with its ears that is inside of the image.

    Args:
      figure: The animal.
      pose: Of the head.
      size: Side of the image, pixels.

    Returns:
      float32 `[4]`, x0, y0, x1, y1 in pixels.
    """
    box = head_extent(figure, pose)
    return (np.clip(box, 0, 1) * size).astype(np.float32)


def direction(rng: np.random.Generator) -> np.ndarray:
    """Returns where light comes from, a vector `[2]` of length 1."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([math.cos(angle), math.sin(angle)])


def with_animal(
    rng: np.random.Generator,
    image: np.ndarray,
    placed: list[Placed],
    animal: np.ndarray,
    light: np.ndarray,
) -> np.ndarray:
    """Returns an image with an animal in front of it, and the shadow that it throws.

    Args:
      rng: Source of the draws.
      image: uint8 `[C, C, 3]`.
      placed: The layers of the animal.
      animal: Its silhouette, uint8 `[C, C]`.
      light: Where light comes from, `[2]`.
    """
    soft = _soft(animal)
    image = scenery.lit(image, _drop_shadow(soft, light))
    strokes.paint(image, placed)
    cv2.copyTo(scenery.lit(image, _relief(soft, light, rng)), animal, image)
    return image


def photograph(
    rng: np.random.Generator, image: np.ndarray, size: int, light: np.ndarray
) -> np.ndarray:
    """Returns the image at its size, with the light's fall-off, blur and noise.

    Args:
      rng: Source of the draws.
      image: uint8 `[C, C, 3]`.
      size: Side of the result, pixels.
      light: Where light comes from, `[2]`.

    Returns:
      uint8 `[size, size, 3]`.
    """
    gains = rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3)
    corners = np.array([[(-1, -1), (1, -1)], [(-1, 1), (1, 1)]]) @ light
    field = (1 + rng.uniform(0, 0.16) * corners[..., None]) * gains * 128
    field = cv2.resize(field.clip(0, 255).astype(np.uint8), (size, size))
    image = cv2.multiply(scenery.shrunk(image, size), field, scale=1 / 128)
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), size * rng.uniform(0.004, 0.009))
    strength = rng.uniform(0, 0.1)
    noise = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    return cv2.addWeighted(image, 1, noise, strength, -127.5 * strength)


def _soft(mask: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(
        scenery.shrunk(mask, scenery.GRID).astype(np.float32) / 255, (0, 0), 2.5
    )


def _drop_shadow(soft: np.ndarray, light: np.ndarray) -> np.ndarray:
    shift = np.array([[1, 0, -3 * light[0]], [0, 1, -3 * light[1]]], np.float32)
    return 1 - 0.4 * cv2.warpAffine(soft, shift, (scenery.GRID, scenery.GRID))


def _relief(
    soft: np.ndarray, light: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns the animal's brightness: its soft mask as a hill, lit from one side."""
    slope_x, slope_y = cv2.Sobel(soft, -1, 1, 0), cv2.Sobel(soft, -1, 0, 1)
    hill = np.float32(light[0]) * slope_x + np.float32(light[1]) * slope_y
    grain = rng.standard_normal((scenery.GRID, scenery.GRID), np.float32)
    return 1.04 - np.float32(rng.uniform(0.2, 0.55)) * hill + 0.03 * grain
