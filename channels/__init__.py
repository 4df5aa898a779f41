"""One file here is one channel, found by scanning the folder; files starting with `_` are codecs."""
