//! End-to-end tests of the real `septwatch` binary.
