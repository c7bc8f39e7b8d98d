"""From a Problem to Measurements: the two gradients, the spectrum's ends, the noise, the ridge, the SAM Jacobian."""
