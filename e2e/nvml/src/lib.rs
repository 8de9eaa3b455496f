//! A `libnvidia-ml.so.1` whose devices are read from a file.
