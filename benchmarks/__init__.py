"""What `make bench` runs: wrk against real servers, and every figure a ratio to another of the same rounds."""
