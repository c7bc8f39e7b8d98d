"""What to change: rho, momentum and batch size, jointly, with the binding constraint by name or the reason for
silence.
"""

from samdiag.advice.joint import prescribe

__all__ = ["prescribe"]
