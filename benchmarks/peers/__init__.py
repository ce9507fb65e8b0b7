"""Other libraries' solvers on the same problems; `make bench-peers` installs those not locked."""
