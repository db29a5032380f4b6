"""The paper's codec: min-max quantization and zero-run coding."""
