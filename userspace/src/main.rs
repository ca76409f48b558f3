//! The `septwatch` command.
use septwatch::hooks::{attach, load};
use septwatch_common::{
    Leaf,
    config::{HOOKED, Shape},
};

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tdh_x(a: u64) -> u64 {
    std::hint::black_box(a + 1)
}

fn main() -> anyhow::Result<()> {
    let settings = load::Settings {
        page: load::PageStruct { base: 0xffffea0000000000, size: 64 },
        tdr_page: 0,
        tdvpr_page: 0,
        memory: load::Memory::User,
        premap_exempt: false,
        shapes: HOOKED
            .iter()
            .map(|l| {
                (
                    *l,
                    Shape {
                        td: 0,
                        gpa: 1,
                        level: 2,
                        page: 3,
                        ext_err1: 4,
                        ext_err2: 5,
                        vp: 0xff,
                        hkid: 0xff,
                        flags: 3,
                    },
                )
            })
            .collect(),
        frames: 6 << 18,
        ledger_limit: None,
        rings: Default::default(),
        log_level: 0,
    };
    let t = std::time::Instant::now();
    let mut ebpf = load::load(&settings, None)?;
    println!("loaded {:?}", t.elapsed());
    for p in ["mm_page_free", "mm_page_free_batched", "mm_page_alloc"] {
        let t = std::time::Instant::now();
        match attach::tracepoint(&mut ebpf, p) {
            Ok(_) => println!("{p} ok {:?}", t.elapsed()),
            Err(e) => println!("{p} {:?}", e),
        }
    }
    let addr = tdh_x as *const () as u64;
    let n: usize = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(0);
    for l in [HOOKED[n]] {
        let t = std::time::Instant::now();
        match attach::own_functions(&mut ebpf, &[(l, addr)]) {
            Ok(_) => println!("{} ok {:?}", l.name(), t.elapsed()),
            Err(e) => println!("{} {:?}", l.name(), e),
        }
        let _ = Leaf::MngCreate;
    }
    println!("missed {}", attach::missed_runs(&ebpf)?);
    Ok(())
}
