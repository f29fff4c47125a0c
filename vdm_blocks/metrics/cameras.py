"""Known cameras: where points of space are seen, how they move in the picture, and which line a match lies on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Cameras"]

_SKY = 1e6


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """T pinhole cameras. Rows and columns are continuous: the centre of the first pixel is at (0.5, 0.5).

    Args:
        eye: (T, 3), where each is.
        axes: (T, 3, 3), its right, up and forward.
        slope: the tangent of half the vertical field of view.
        height, width: of the picture, in pixels.

    Raises:
        ValueError: shapes that do not belong together.
    """

    eye: Tensor
    axes: Tensor
    slope: float
    height: int
    width: int

    def __post_init__(self) -> None:
        count = len(self.eye)
        if self.eye.shape != (count, 3) or self.axes.shape != (count, 3, 3) or not self.slope > 0:
            raise ValueError(
                f"T cameras have eyes (T, 3), axes (T, 3, 3) and slope > 0; got {tuple(self.eye.shape)}, "
                f"{tuple(self.axes.shape)} and {self.slope}"
            )

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points (T, N, 3) of space, one row a camera -> rows and columns (T, N, 2), and depths (T, N)."""
        seen = torch.einsum("tij,tnj->tni", self.axes.double(), points.double() - self.eye.double()[:, None])
        right, up, forward = seen.unbind(2)
        scale = self.height / (2 * self.slope * forward)
        return torch.stack([self.height / 2 - up * scale, self.width / 2 + right * scale], dim=2), forward

    def fundamental(self, first: int, second: int) -> Tensor:
        """F (3, 3) with x'^T F x = 0 for x, x' = (column, row, 1) of one still point in two cameras.

            F = K^-T [t]_x R K^-1,  R = A' A^T,  t = A' (eye - eye')      (Hartley and Zisserman 2004, eq. 9.2)

        of norm 1, float64.

        Raises:
            ValueError: the two cameras are at one place, where every pair of points would do.
        """
        a, b = self.axes[first].double(), self.axes[second].double()
        t = b @ (self.eye[first] - self.eye[second]).double()
        if float(t.norm()) < 1e-6:
            raise ValueError(
                f"cameras {first} and {second} are at one place; epipolar lines need a camera that moves"
            )
        focal, where = self.height / (2 * self.slope), t.device
        k = torch.tensor(
            [[focal, 0.0, self.width / 2], [0.0, -focal, self.height / 2], [0.0, 0.0, 1.0]],
            dtype=torch.float64,
            device=where,
        ).inverse()
        zero = torch.zeros((), dtype=torch.float64, device=where)
        cross = torch.stack([zero, -t[2], t[1], t[2], zero, -t[0], -t[1], t[0], zero]).view(3, 3)
        f = k.T @ cross @ (b @ a.T) @ k
        unit: Tensor = f / f.norm()
        return unit

    def flow(
        self, depth: Tensor, ids: Tensor, *, centres: Tensor | None = None, turns: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The true motion of every pixel, of a still world in which rigid things move and turn about the vertical.

        Args:
            depth: (T, H, W) along the camera's axis; infinite where there is sky.
            ids: (T, H, W), 0 for what stands still, k for the k-th thing.
            centres: (T, K, 3) of the things; None: nothing moves but the camera.
            turns: (T, K) radians; None is no turning.

        Returns:
            flow (1, 2, T - 1, H, W) and visible (1, T - 1, H, W) as `warping_error` takes them. A pixel is visible
            when the next frame shows its point, and neither place lies at an edge of a thing.

        Raises:
            ValueError: shapes that do not belong together.
        """
        frames, height, width = depth.shape
        if (
            (height, width) != (self.height, self.width)
            or len(self.eye) != frames
            or ids.shape != depth.shape
        ):
            raise ValueError(
                f"{len(self.eye)} cameras of {self.height}x{self.width} and depth {tuple(depth.shape)}, ids "
                f"{tuple(ids.shape)}; give one depth and one id a pixel, and one camera a frame"
            )
        row, column = (torch.arange(side, device=depth.device).double() + 0.5 for side in (height, width))
        up = ((1 - 2 * row / height) * self.slope)[:, None].expand(height, width)
        right = ((2 * column / width - 1) * self.slope * width / height)[None].expand(height, width)
        rays = torch.stack([right, up, torch.ones_like(up)], dim=2)
        far = depth.double().clamp(max=_SKY)
        world = torch.einsum("thwa,taj->thwj", rays * far[..., None], self.axes.double())
        points = (world + self.eye.double()[:, None, None])[:-1]
        if centres is not None:
            points = _carry(points, ids[:-1], centres.double(), turns)
        following = Cameras(
            eye=self.eye[1:], axes=self.axes[1:], slope=self.slope, height=height, width=width
        )
        place, depth_there = following.project(points.flatten(1, 2))
        place, depth_there = (
            place.view(frames - 1, height, width, 2),
            depth_there.view(frames - 1, height, width),
        )
        flow = place - torch.stack(torch.meshgrid(row, column, indexing="ij"), dim=2)
        visible = _visible(place, depth_there, far, ids)
        return flow.permute(3, 0, 1, 2)[None].float(), visible[None]


def _carry(points: Tensor, ids: Tensor, centres: Tensor, turns: Tensor | None) -> Tensor:
    out = points.clone()
    for k in range(centres.shape[1]):
        angle = points.new_zeros(len(ids)) if turns is None else turns[:, k].double().diff()
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        x, y, z = (points - centres[:-1, k, None, None]).unbind(3)
        turned = torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=3)
        out = torch.where((ids == k + 1)[..., None], turned + centres[1:, k, None, None], out)
    return out


def _visible(place: Tensor, depth_there: Tensor, depth: Tensor, ids: Tensor) -> Tensor:
    frames, height, width = ids.shape
    padded = F.pad(ids.double(), (1, 1, 1, 1), mode="replicate")[:, None]
    plain = (F.max_pool2d(padded, 3, 1) == -F.max_pool2d(-padded, 3, 1))[:, 0]
    row, column = place.floor().long().unbind(3)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
    t = torch.arange(1, frames, device=ids.device)[:, None, None]
    same = (ids[t, row, column] == ids[:-1]) & plain[t, row, column] & plain[:-1]
    near = (depth[t, row, column] - depth_there).abs() < 0.1 * depth_there.abs() + 0.05
    return inside & same & near
