r"""
A kernel density of MLP1 depends on its noise
=============================================

Fig. 10 of the Gibbs paper estimates I(X;T_i) of MLP1 by a kernel density, with eight variances of
its noise (Table 3). According to the paper, all layers approach 2.0 as the variance rises from 0.01
to 16, and variances below 1.0 give more than the 2 bits that the input has.

The run has the published size, 50 starts and 1000 epochs, so ``--full`` changes nothing. One
setting that the text leaves out is taken from the released scripts: the noise of the images has a
tenth of the variance. A density with little noise saturates, which is what the figure shows.

.. image:: /reproduction/gibbs_fig10_kde_mlp1.png
   :alt: I(X;T_i) of MLP1 over training, for eight variances of the noise.
"""

# sphinx_gallery_thumbnail_path = "reproduction/gibbs_fig10_kde_mlp1.png"

from _gibbs_figures import setting_figure

setting_figure("Fig. 10")
