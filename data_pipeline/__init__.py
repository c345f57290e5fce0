"""From files to batches: tracks, audio, tf.data streams, augmentation, volumes."""
