"""What hosts read and manage from Python: one module for each attribute of `Analytics`."""
