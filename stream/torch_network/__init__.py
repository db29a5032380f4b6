"""The reference network in torch: what training, study and calibration differentiate, and the engine of CUDA."""
