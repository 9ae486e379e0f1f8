"""Shared helpers: arrays, labels, samples, files, parallel tasks, private names of scikit-learn."""
