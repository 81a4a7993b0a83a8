"""Reading a canvas in plain torch; nothing here knows fairseq."""
