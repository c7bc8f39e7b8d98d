"""Hessian-vector products of one batch, one file per engine; which one a measurement uses is chosen by timing them."""
