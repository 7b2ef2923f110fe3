"""Callbacks of Keras: one module per choice that takes part in the exact-resume law, and others.

Importing this package does not import TensorFlow; building a callback does. A choice that only
watches says ``watches_only = True``. One that decides at the ends of epochs how a training goes on
names in ``remembers`` the attributes that hold its memory (:mod:`lottery.training.deciding`); they
must hold numbers, words or lists of arrays. Its ``told(callback, last_epoch)`` is what a result has
to say of it.
"""
