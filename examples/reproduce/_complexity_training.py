"""Training that scripts on the Complexity paper share."""

import torch


def measured_epochs(n_epochs):
    """Return 0, 1, 2, 4, 8, ... and the last epoch."""
    return sorted({0, *(2**k for k in range(n_epochs.bit_length())), n_epochs})


def train(net, loss, tensors, *, epochs, lr, batch_size=100):
    """Train with Adam and yield after each epoch in ``epochs``; 0 is before training.

    The objective is ``loss(net, *batch)``, where ``batch`` is some rows of all ``tensors``.
    """
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    for epoch in range(max(epochs) + 1):
        if epoch:
            net.train()
            for rows in torch.randperm(len(tensors[0])).split(batch_size):
                optimizer.zero_grad()
                loss(net, *(tensor[rows] for tensor in tensors)).backward()
                optimizer.step()
        if epoch in epochs:
            net.eval()
            yield epoch
