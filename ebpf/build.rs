//! Tells the compiler for which machine the programs read registers, and for which eBPF instructions to compile.

fn main() -> aya_build::Result<()> {
    // Atomic instructions that return the old value (Linux 5.12) need 32-bit registers in the eyes of LLVM. The rest of
    // what it calls `v3` comes along. (`--cpu` itself is given by rustc already.)
    println!("cargo::rustc-link-arg-bins=--cpu-features=+alu32,+jmpext,+jmp32");
    // bpf-linker's own choice for copies makes every memset a call of a loop, byte by byte. The kernel's verifier
    // follows each turn: that alone was half of its work.
    println!("cargo::rustc-link-arg-bins=--disable-expand-memcpy-in-order");
    aya_build::emit_bpf_target_arch_cfg()
}
