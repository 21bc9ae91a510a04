"""balinp: Bayesian Layerwise Inference (BALI), the minimal NumPy/CuPy reference."""

__version__ = "0.1.0"
