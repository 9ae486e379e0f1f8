"""Shared helpers: arrays, labels, files, parallel tasks, private names of scikit-learn."""
