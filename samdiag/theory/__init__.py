"""The papers as pure functions of plain numbers. No torch; each function names its source, its assumptions and where
it fails.

Symbols: eta learning rate, gamma heavy-ball momentum (PyTorch SGD), lam a Hessian eigenvalue, rho the SAM radius, B
the batch size, m the number of samples behind the ascent gradient, C the per-sample gradient covariance.

KIM: Stability Analysis of Sharpness-Aware Minimization (arXiv 2301.06308). PARK: Sharpness-Aware Minimization Can
Hallucinate Minimizers (arXiv 2509.21818). SI: Practical Sharpness-Aware Minimization Cannot Converge All the Way to
Optima (arXiv 2306.09850).
"""
