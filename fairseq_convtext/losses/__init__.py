"""Losses over the canvas in plain torch; nothing here knows fairseq."""
