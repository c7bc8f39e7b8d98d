"""The papers as pure functions of plain numbers. No torch; each function names its source, its assumptions and where
it fails.

Symbols: eta step size (learning rate, dampening taken off), gamma momentum (PyTorch SGD; heavy ball, or Nesterov where
`nesterov` is given), lam a Hessian eigenvalue, q its eigenvector, rho the SAM radius, rho_eff what stands in its place
in the linearised step, mu the curvature that the step sees, B the batch size, m the number of samples behind the ascent
gradient, C the per-sample gradient covariance, c' the noise variance of one step along q.

edge: stability and the bounce. cycles: longer bounces. saddle: capture and escape. trap: the invariant ball. diffusion:
noise. estimators: what batches say. floor: where constant rho stops. hallucination: attraction by the Jacobian.
prescription: bounds. quadratic: the optimiser itself on a quadratic. quoted, comparisons: the papers' own formulas.

KIM: Stability Analysis of Sharpness-Aware Minimization (arXiv 2301.06308). PARK: Sharpness-Aware Minimization Can
Hallucinate Minimizers (arXiv 2509.21818). SI: Practical Sharpness-Aware Minimization Cannot Converge All the Way to
Optima (arXiv 2306.09850).
"""
