"""What any package may use: arrays, labels, files, parallel runs, scikit-learn's private names."""
