"""Frames in, video out: a video file or a folder of images as one sequence of RGB frames.

This module decides what counts as a usable input and in which order frames come. It must not know the tracker. OpenCV
decodes. PyAV encodes, because OpenCV's writer takes no options: its VP9 needs fifteen times as long for a larger file
of the same quality. Both are imported on use, because start-up must not pay for them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.untrusted import check_ordinary, read_bytes, shown
from spiketrack_deploy.inputs.whole_file import whole
from spiketrack_deploy.tracking.crop import check_frame
from spiketrack_deploy.tracking.images import IMAGE_SUFFIXES, Image, decode_image, natural, opencv

DEFAULT_FPS = 25.0
"""Frames per second of a folder of images, which has no clock, and of a video that states none."""
MAX_IMAGE_BYTES = 2**28
CODECS = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "24", "b": "0"},
    "mpeg4": {"qmin": "2", "qmax": "4"},
}
"""FFmpeg's encoders with their options, tried in this order: browsers play the first two, every build has the last."""
RATE_PARTS = 65535
"""Largest denominator of a frame rate that all of them can write."""


@dataclass(frozen=True, slots=True)
class FrameSource:
    """RGB frames (uint8 ``[H, W, 3]``, all of one size); every iteration starts again at the first frame.

    ``frame_count`` is exact for a folder, what the container states for a video (frames may turn out fewer), and None
    where it states nothing. ``width`` and ``height`` are those of the first frame. A frame that cannot be decoded or
    has another size raises :class:`InputError` when it is reached.
    """

    name: str
    path: Path
    fps: float
    width: int
    height: int
    frame_count: int | None
    max_frames: int | None
    images: tuple[Path, ...]

    def __iter__(self) -> Iterator[Image]:
        frames = _folder_frames(self.images) if self.images else _video_frames(self.path)
        for index, frame in enumerate(frames):
            if self.max_frames is not None and index >= self.max_frames:
                frames.close()
                return
            if frame.shape[:2] != (self.height, self.width):
                where = self.images[index] if self.images else f"frame {index} of {self.path}"
                raise InputError(
                    f"{where} has {frame.shape[1]}x{frame.shape[0]} pixels but the first frame has "
                    f"{self.width}x{self.height}; all frames must have one size"
                )
            yield frame


def open_frames(path: str | os.PathLike[str], max_frames: int | None = None) -> FrameSource:
    """A video file, or a folder of images in natural order (``frame_2`` before ``frame_10``).

    At most ``max_frames`` frames are yielded. The first frame is decoded here, so that an unusable input fails at once:
    :class:`InputError` for a missing path, a folder without images, an unreadable or empty video.
    """
    source = Path(path)
    if max_frames is not None and max_frames < 1:
        raise InputError(f"at least one frame is needed, not {max_frames}")
    if source.is_dir():
        return _open_folder(source, max_frames)
    if not source.exists():
        raise InputError(f"{source} does not exist; give a video file or a folder of images")
    check_ordinary(source, "give a video file or a folder of images")
    _check_name(source)
    return _open_video(source, max_frames)


def _check_name(path: Path) -> None:
    """InputError for a path that OpenCV cannot take: it ends the process instead of saying so."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{shown(str(path))}: its name or folder is no UTF-8; rename it") from None


def write_video(path: str | os.PathLike[str], frames: Iterable[Image], fps: float) -> None:
    """Write RGB frames of one size as an mp4; H.264 or VP9 where this PyAV can, else MPEG-4.

    The file appears only when it is whole. An odd last row or column is cut, as the codecs need even sides. Raises
    :class:`InputError` for no frames, mixed sizes, an impossible rate, or a path that cannot be written.
    """
    target = Path(path)
    rate = Fraction(fps).limit_denominator(RATE_PARTS) if math.isfinite(fps) else Fraction(0)
    if rate <= 0:
        raise InputError(f"a video cannot have {fps} frames per second")
    if not target.parent.is_dir():
        raise InputError(f"video {target} cannot be written: folder {target.parent} does not exist")
    _check_name(target.absolute())
    with whole(target) as part:
        _encode(part, frames, rate, target)


def _encode(part: Path, frames: Iterable[Image], rate: Fraction, target: Path) -> None:
    import av

    stream, size = None, (0, 0)
    try:
        with av.open(str(part), "w", format="mp4") as file:
            for frame in frames:
                check_frame(frame)
                height, width = frame.shape[0] & ~1, frame.shape[1] & ~1
                if stream is None:
                    size, stream = (width, height), _open_stream(file, rate, width, height)
                if (width, height) != size:
                    raise InputError(
                        f"video {target.name}: a frame has {width}x{height} pixels, the first one had "
                        f"{size[0]}x{size[1]}"
                    )
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
                file.mux(stream.encode(picture))
            if stream is None:
                raise InputError("a video needs at least one frame")
            file.mux(stream.encode())
    except av.FFmpegError as error:
        raise InputError(
            f"video {target} cannot be written ({error.strerror}); is the disk full or the folder read-only?"
        ) from error


def _open_stream(file: Any, rate: Fraction, width: int, height: int) -> Any:
    import av

    if not width or not height:
        raise InputError("a video needs frames of at least 2x2 pixels")
    for codec, options in CODECS.items():
        if codec in av.codecs_available:
            stream = file.add_stream(codec, rate=rate, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            return stream
    raise InputError(f"no video can be written: this PyAV has none of the encoders {', '.join(CODECS)}")


def _open_folder(folder: Path, max_frames: int | None) -> FrameSource:
    found = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file() and p.name[0] != ".")
    images = sorted(found, key=lambda path: natural(path.name))
    if not images:
        raise InputError(f"folder {folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    first = _read_image(images[0])
    count = len(images) if max_frames is None else min(max_frames, len(images))
    height, width = first.shape[:2]
    return FrameSource(
        folder.resolve().name, folder, DEFAULT_FPS, width, height, count, max_frames, tuple(images[:count])
    )


def _read_image(path: Path) -> Image:
    # Decoded from bytes, because OpenCV's own file reading cannot tell a missing file from a broken one.
    return decode_image(read_bytes(path, MAX_IMAGE_BYTES, "replace the image"), str(path))


def _folder_frames(images: tuple[Path, ...]) -> Generator[Image, None, None]:
    for path in images:
        yield _read_image(path)


def _open_video(path: Path, max_frames: int | None) -> FrameSource:
    cv2 = opencv()
    first = next(_video_frames(path), None)
    if first is None:
        raise InputError(f"video {path} holds no frame that can be decoded")
    capture = cv2.VideoCapture(str(path))
    fps, stated = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    count = int(stated) if math.isfinite(stated) and 1 <= stated < 1e9 else None
    if count is not None and max_frames is not None:
        count = min(count, max_frames)
    rate = float(fps) if math.isfinite(fps) and 0 < fps <= 1000 else DEFAULT_FPS
    return FrameSource(path.stem, path, rate, first.shape[1], first.shape[0], count, max_frames, ())


def _video_frames(path: Path) -> Generator[Image, None, None]:
    cv2 = opencv()
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise InputError(f"video {path} cannot be opened: it is no video, or no codec for it is present")
        while True:
            ok, bgr = capture.read()
            if not ok:
                return
            yield np.ascontiguousarray(bgr[:, :, ::-1], dtype=np.uint8)
    finally:
        capture.release()
