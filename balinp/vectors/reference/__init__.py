"""BALI once more, in 50-digit arithmetic, dense and slow: where the expected values of the vectors come from.

Nothing of balinp's core is imported or copied: covariances are dense Kronecker products, gradients and Jacobians are
central differences at 120 digits, evidences are densities of the data. ``rules`` holds what is a choice of ours
(Kronecker form, prior precision by evidence, tempering, noise), ``iteration`` how a step is put together from it.
Every operation is a function from its inputs (as in the JSON files, numbers as mpf) to its outputs.
Needs mpmath (extra ``test``).
"""
