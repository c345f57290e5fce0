"""TensorBoard logs: losses, and spectrograms and audio of a few validation crops."""

import contextlib
import errno
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from sccunet import spectral


class TensorBoard(keras.callbacks.TensorBoard):
    """Logs Keras's scalars, and spectrograms and audio of the estimates for fixed crops.

    Args:
      log_dir: folder of the logs.
      crops: stems of validation crops, float32 [crops, stems, patch_samples].
      epoch: epoch in which the run starts or resumes.
      note: text for the log of a resumed run.
    """

    def __init__(self, log_dir: str, crops: np.ndarray, epoch: int = 0, note: str = ""):
        super().__init__(log_dir, write_graph=False)
        self._crops = crops
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
                self._look("truth", self._crops, self._epoch)

    def on_epoch_end(self, epoch, logs=None):
        """Raises OSError if the log cannot be written."""
        mixtures = ops.convert_to_tensor(self._crops.sum(axis=1))
        estimates = ops.convert_to_numpy(
            spectral.separate_patches(mixtures, self.model.unet, self.model.config)
        )
        with self._explained():
            super().on_epoch_end(epoch, logs)
            with self._val_writer.as_default():
                self._look("estimate", estimates, epoch + 1)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Raises OSError in place of TensorFlow's errors."""
        import tensorflow as tf

        try:
            yield
        except tf.errors.OpError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise OSError(errno.EIO, reason, self._log_write_dir) from error

    def _look(self, what: str, waveforms: np.ndarray, step: int) -> None:
        """Logs spectrograms in dB (low frequencies at the bottom) and audio, one entry per stem."""
        import tensorflow as tf

        model = self.model.config
        magnitudes = ops.convert_to_numpy(
            spectral.magnitude(*spectral.stft(ops.convert_to_tensor(waveforms), model))
        )  # [crops, stems, frames, bins]
        level = 20 * np.log10(np.maximum(magnitudes, 1e-5))
        # 80 dB below the strongest possible tone of this window is black.
        shade = np.clip(1 + (level - 20 * np.log10(model.frame_length / 4)) / 80, 0, 1)
        for i, stem in enumerate(model.stems):
            image = shade[:, i].transpose(0, 2, 1)[:, ::-1, :, None]  # [crops, bins, frames, 1]
            # TensorBoard shows one kind of data per name.
            tf.summary.image(f"{what}/{stem}/spectrogram", image, step, max_outputs=len(image))
            tf.summary.audio(
                f"{what}/{stem}/audio",
                waveforms[:, i, :, None],
                model.sample_rate,
                step,
                max_outputs=len(waveforms),
            )
