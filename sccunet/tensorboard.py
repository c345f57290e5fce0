"""TensorBoard logs: losses, and pictures and sound of the estimates of an excerpt."""

import contextlib
import errno
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from sccunet import pictures, spectral
from sccunet.config import Config
from sccunet.separation import Separator

_ROWS, _MOST_COLUMNS = 160, 640  # of each half of a picture
_LINES_HZ = (100, 1000, 10_000)


class TensorBoard(keras.callbacks.TensorBoard):
    """Logs Keras's scalars, and the estimates of an excerpt beside the truth.

    Each stem and the mixture has a group: a picture with the truth's spectrogram above the
    estimate's, on logarithmic frequency axes, and the sounds of both. The excerpt is separated as
    recordings are; the mixture's estimate is the sum of the stems'.

    Args:
      log_dir: folder of the logs.
      excerpt: true stems, float32 [stems, samples, channels].
      epoch: epoch in which the run starts or resumes.
      note: text for the log of a resumed run.
    """

    def __init__(self, log_dir: str, excerpt: np.ndarray, epoch: int = 0, note: str = ""):
        super().__init__(log_dir, write_graph=False)
        self._excerpt = excerpt
        self._epoch = epoch
        self._note = note

    def on_train_begin(self, logs=None):
        """Raises OSError if the log cannot be written."""
        import tensorflow as tf

        with self._explained():
            super().on_train_begin(logs)
            with self._val_writer.as_default():
                if self._note:
                    tf.summary.text("run", self._note, self._epoch)
                self._sounds("truth", self._excerpt, self._epoch)

    def on_train_batch_end(self, batch, logs=None):
        """Hands no logs on: Keras would convert them, though it writes those of epochs only."""
        super().on_train_batch_end(batch)

    def on_epoch_end(self, epoch, logs=None):
        """Raises OSError if the log cannot be written."""
        estimates = self._separated()
        with self._explained():
            super().on_epoch_end(epoch, logs)
            with self._val_writer.as_default():
                self._pictures(estimates, epoch + 1)
                self._sounds("estimate", estimates, epoch + 1)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Raises OSError in place of TensorFlow's errors."""
        import tensorflow as tf

        try:
            yield
        except tf.errors.OpError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise OSError(errno.EIO, reason, self._log_write_dir) from error

    def _separated(self) -> np.ndarray:
        """Returns the estimates, shaped as the excerpt."""
        model, unet = self.model.config, self.model.validated

        def separate_patches(mixture):  # [rows, channels, n] -> [rows, stems, channels, n]
            return ops.convert_to_numpy(spectral.separate_patches(mixture, unet, model))

        separate = Separator(separate_patches, Config(model=model, downmix=False))
        estimates = separate(self._excerpt.sum(axis=0), model.sample_rate)
        return np.stack([estimates[stem] for stem in model.stems])

    def _named(self, stems: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the name and the samples [samples, channels] of the mixture and of each stem."""
        yield "mixture", stems.sum(axis=0)
        yield from zip(self.model.config.stems, stems, strict=True)

    def _pictures(self, estimates: np.ndarray, step: int) -> None:
        import tensorflow as tf

        seconds = estimates.shape[1] / self.model.config.sample_rate
        about = (
            f"{seconds:.1f} s: above the truth, below the estimate, from {pictures.LOWEST_HZ:g} Hz"
            f" to {self.model.config.sample_rate / 2000:g} kHz, with lines at 100 Hz, 1 and 10 kHz"
        )
        pairs = zip(self._named(self._excerpt), self._named(estimates), strict=True)
        for (name, truth), (_, estimate) in pairs:
            halves = self._spectrogram(truth), self._spectrogram(estimate)
            gap = np.full_like(halves[0][:4], 255)
            picture = np.concatenate([halves[0], gap, halves[1]])[None]
            tf.summary.image(f"{name}/spectrogram", picture, step, description=about)

    def _spectrogram(self, waveform: np.ndarray) -> np.ndarray:
        """Returns a picture of samples [samples, channels]: uint8 [rows, columns, 3]."""
        model = self.model.config
        channels = np.ascontiguousarray(waveform.T)
        magnitudes = ops.convert_to_numpy(spectral.magnitude(*spectral.stft(channels, model)))
        magnitudes = np.sqrt(np.square(magnitudes).mean(axis=0))  # of both channels
        magnitudes = magnitudes[:: -(-len(magnitudes) // _MOST_COLUMNS)]  # [columns, bins]
        bands = pictures.log_frequency_bands(model.sample_rate, model.frame_length, _ROWS)
        # A sine of full scale has the magnitude frame_length / 4.
        powers = bands @ np.square(magnitudes.T / (model.frame_length / 4))  # [rows, columns]
        picture = pictures.coloured(10 * np.log10(np.maximum(powers, 1e-20)))
        for hertz in _LINES_HZ:
            row = pictures.row_of(hertz, model.sample_rate, _ROWS)
            if row < _ROWS:
                picture[row] = picture[row] // 2 + 64
        return picture[::-1]  # low frequencies at the bottom

    def _sounds(self, what: str, stems: np.ndarray, step: int) -> None:
        import tensorflow as tf

        for name, waveform in self._named(stems):
            # TensorBoard shows one kind of data per tag, and tags with one beginning together.
            sound = waveform[None]
            tf.summary.audio(f"{name}/{what}", sound, self.model.config.sample_rate, step)
