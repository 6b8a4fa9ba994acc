"""TIR kernels that we own: what each computes, and how its work is laid over a device's threads."""
