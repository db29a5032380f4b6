"""The anchor-free detection head of ultralytics' YOLOv5u."""

from __future__ import annotations

from ultralytics.nn.modules import Detect


class AnchorFreeDetect(Detect):  # type: ignore[misc] # ultralytics ships without types
    """ultralytics' own head, set to return predictions (B, 4 + classes, N) and nothing else.

    Rows 0 to 3 are centre x, centre y, width and height in pixels of the canvas, the others class probabilities.
    """

    legacy = True  # plain convolutions in cv3, as YOLOv5u was trained with; later models have depthwise ones
    export = True  # return the predictions without the raw maps that training needs
    dynamic = (
        True  # make the anchor points anew: the cached ones ignore the device, and threads would share them
    )
