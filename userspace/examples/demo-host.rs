//! A host for septwatch on any host: the demo's TDs run in this process, storm after storm, and the programs that watch
//! them are left to whoever takes them over. So what watches is alone in its process, as on a host with TDX, and not
//! beside the demo's own books. Ends with its input, and takes the programs away.
//!
//! `cargo run --release --example demo-host -- TDS PAGES OPERATIONS FAULTS PACE`: TDs at once, pages of each, operations
//! and faults of a storm, operations a second or `max`. Prints `left` when all is attached.

use std::{
    env,
    error::Error,
    io::{self, Read as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use septwatch::{
    hooks::{
        lock::Lock,
        pins::{Note, Pins},
        reactions::Needs,
    },
    source::{
        demo::{
            module,
            storm::{self, Config},
            vmm::Host,
        },
        open::{self, Options},
    },
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let mut argument = || arguments.next().ok_or("arguments: TDS PAGES OPERATIONS FAULTS PACE");
    let (tds, pages, operations, faults, pace) =
        (argument()?, argument()?, argument()?, argument()?, argument()?);
    let usual = Config::default();
    let storm = Config {
        tds: tds.parse::<u32>()?.div_ceil(usual.threads),
        pages: pages.parse()?,
        operations: operations.parse()?,
        faults: faults.parse()?,
        pace: if pace == "max" { None } else { Some(pace.parse()?) },
        ..usual
    };
    let (pins, _) = Pins::fresh()?.ok_or("no bpffs on /sys/fs/bpf")?;
    let _left = Left;
    // Its uprobes are attached as long as it is there; it reads nothing.
    let (_kernel, config) = {
        // Until it is left: who takes over takes the lock too.
        let _lock = Lock::take("demo-host")?;
        let options = Options::default();
        let (mut kernel, config) = open::demo(module::Shape::V7_3, &options, Some(pins))?;
        let hooks = module::addresses().len();
        kernel.complete(&Note::new(hooks, hooks, false, Needs::default(), Vec::new()))?;
        kernel.leave();
        (kernel, config)
    };
    println!("left");
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    thread::spawn(move || {
        // An error is an end too.
        let _ = io::stdin().read(&mut [0]);
        told.store(true, Ordering::Release);
    });
    let host = Host::new(config, storm.host_pages(), false)?;
    let mut seed = 1;
    while !stop.load(Ordering::Acquire) {
        storm::storm_until(&host, &Config { seed, ..storm }, &stop)?;
        seed += 1;
    }
    Ok(())
}

/// What is left in the kernel is gone with this.
struct Left;

impl Drop for Left {
    fn drop(&mut self) {
        if let Some((pins, _)) = Pins::left() {
            let _ = pins.remove();
        }
    }
}
