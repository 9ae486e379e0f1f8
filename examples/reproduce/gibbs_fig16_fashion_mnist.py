r"""
Information of layers and networks on Fashion-MNIST
===================================================

Fig. 16 of the Gibbs paper trains MLP7 to MLP9 on Fashion-MNIST for 500 epochs of Adam with a
learning rate of 0.0005. The paper finds the same as on MNIST (Fig. 15): I(X;T_i) does not fall from
layer to layer as it would in a chain that starts at X, I(X_bar;T_i) falls and I(Y;T_i) rises, and
at most epochs I(X;T_net) > H(Y) and I(Y;T_net) = H(Y) = log2 10.

The small version trains on 1500 random images in batches of 50 for 200 epochs, from 5 starts.
``--full`` uses all 60,000 images in batches of 600, for 500 epochs. Each image has mean 0 and
standard deviation 1, as in the released code; the text does not say. Whether a statement holds "at
most epochs" depends on their number: it takes about 50 epochs until the labels are fitted.

.. image:: /reproduction/gibbs_fig16_fashion_mnist.png
   :alt: Information of the layers of three MLPs over training on Fashion-MNIST.
"""

# sphinx_gallery_thumbnail_path = "reproduction/gibbs_fig16_fashion_mnist.png"

from _gibbs_figures import benchmark_figure

benchmark_figure("Fig. 16")
