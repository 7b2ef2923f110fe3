"""The offline job: any image source to uniform square uint8 images, on Spark or local processes.

``shards`` is all that runs in a worker: one pure function from a task to what it wrote. ``spark``
and ``processes`` map it, ``sources`` and ``job`` say over what, ``assembly`` makes one output of
it. Workers need numpy, Pillow, OpenCV and google-crc32c, no TensorFlow.
"""
