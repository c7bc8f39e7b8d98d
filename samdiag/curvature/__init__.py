"""The numerical core: an objective on fixed batches, Hessian products, Lanczos with certificates, the SAM Jacobian."""
