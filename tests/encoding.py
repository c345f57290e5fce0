"""Encodes test files with PyAV alone, without the code under test."""

import av
import numpy as np


def encode(path, x: np.ndarray, rate: int, codec: str, container=None, **options: str) -> None:
    """Encodes float samples `[samples, channels]` with PyAV, in frames of the codec's size."""
    layout = {1: "mono", 2: "stereo"}[x.shape[1]]
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout, options=options)
        context = stream.codec_context
        context.open()
        resampler = av.AudioResampler(
            context.format.name, layout, rate, context.frame_size or 4_096
        )
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(x.T, np.float32), "fltp", layout)
        frame.sample_rate, frame.pts = rate, 0
        for source in (frame, None):
            for piece in resampler.resample(source):
                file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
