"""Read files of points, poses and extrinsics: their formats, axes and clocks."""
