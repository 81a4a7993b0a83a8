"""Convolutional layers in plain torch; nothing here knows fairseq.

Layout. Every activation is ``(batch, positions, channels)``: layer norms and 1x1 convolutions (``nn.Linear``)
then work on the contiguous last dimension, and a convolution over positions sees the same memory as a
channels-last image. Every batch is right-padded, and a mask ``(batch, positions, 1)`` that is true at padding
goes with it.
"""
