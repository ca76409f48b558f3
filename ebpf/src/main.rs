//! The eBPF programs of septwatch.
#![no_std]
#![no_main]
