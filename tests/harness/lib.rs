//! Test harness: finds the binary, samples, oracles and guests; says `skipped: why` when one is missing.
