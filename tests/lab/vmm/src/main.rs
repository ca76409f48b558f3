//! The lab's VMM. It drives trust domains (TDs) through KVM's ordinary uAPI, in every way a page can leave one.
//!
//! `lab-vmm SCRIPT` runs a script (its language: `script`); each process of the script is a `lab-vmm serve`, which
//! takes commands on stdin (`commands`) and holds the TDs (`td`). One line per call goes to stdout: what, result.
//! Nothing here may look for violations: it only makes the kernel do things. Where the kernel is to crash, it loads
//! the next one beforehand and reads the dump afterwards (`crash`).

mod cases;
mod commands;
mod cost;
mod crash;
mod module;
mod qemu;
mod script;
mod td;
mod tdx;

use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-vmm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [verb] if verb == "serve" => commands::serve(),
        [verb, kernel, initrd, command_line] if verb == "load-crash-kernel" => {
            crash::load(kernel, initrd, command_line)
        }
        [verb, dump] if verb == "read-dump" => crash::read(dump),
        [script] => script::run(script),
        _ => bail!(
            "usage: lab-vmm SCRIPT | lab-vmm serve | lab-vmm load-crash-kernel KERNEL INITRD COMMAND-LINE | \
             lab-vmm read-dump FILE"
        ),
    }
}
