"""What the tests of several rings share: servers, kernels, fakes, and waiting for something to come true."""
