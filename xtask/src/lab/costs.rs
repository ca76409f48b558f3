//! What watching adds to KVM's map and zap paths and to the release of a page that nobody lent, in instructions: the
//! emulated CPU's time stamp counter counts them.
//!
//! Each watcher is started in the same machine, one after the other, and the same work is done: nothing; septwatch with
//! programs that do nothing, which is the least that its hooks can cost; septwatch; and what people would use instead.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::kernel::Image;
use super::machines::{Machines, Wanted};
use super::{guest, runner};

const BPFTRACE: &str = include_str!("seamcalls.bt");

/// The work: a TD whose pages lie beside others that stay lent.
const WORK: &str = "\
td a pages=2048 init=2
fault a 16 64
cycle a 512 512 7
pages 1024 7
destroy a
";

/// Functions of a map and a zap, as the kernel's own recorders are told of them.
const FUNCTIONS: [&str; 5] = [
    "tdh_mem_page_aug",
    "tdh_mem_range_block",
    "tdh_mem_track",
    "tdh_mem_page_remove",
    "tdh_phymem_page_wbinvd_hkid",
];

/// What is measured, in this order, with its name for people.
pub const WATCHERS: [(&str, &str); 7] = [
    ("nothing", "nothing attached"),
    ("empty", "empty programs at septwatch's hooks"),
    ("septwatch", "septwatch"),
    ("bpftrace", "bpftrace, maps of lent frames"),
    ("kprobes", "ftrace's kprobes and kretprobes, recorded"),
    ("perf", "perf record of the same"),
    ("trace-cmd", "trace-cmd record of the same"),
];

/// Instructions for a page, with one watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub map: u64,
    pub zap: u64,
    pub free: u64,
}

/// Measures with each watcher; one that cannot be used in this machine says why.
///
/// # Errors
/// The machine cannot be started, or the work fails.
pub fn run(image: &Image, septwatch: &Path, empty: &Path) -> Result<Vec<Result<Cost, String>>> {
    let wanted = Wanted { tools: true, ..Wanted::default() };
    let machines = Machines::prepare_with(image, septwatch, empty, wanted)?;
    let input = [("run", script()), ("work", WORK.to_owned()), ("seamcalls.bt", BPFTRACE.to_owned())];
    let (folder, end) = runner::session(&machines, wanted, &input, 1, |text| print!("{text}"))?;
    runner::done(&end)?;
    let out = folder.path().join("out");
    WATCHERS
        .iter()
        .map(|(name, _)| {
            let said = fs::read_to_string(out.join(name));
            let said = said.with_context(|| format!("{name} left nothing"))?;
            if let Some(why) = said.strip_prefix("cannot: ") {
                return Ok(Err(why.trim().to_owned()));
            }
            cost(&said).with_context(|| format!("{name}: {said}")).map(Ok)
        })
        .collect()
}

/// The figures in what the VMM says.
fn cost(said: &str) -> Result<Cost> {
    let figure = |name: &str| -> Result<u64> {
        let word = said.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        Ok(word.with_context(|| format!("no {name}"))?.parse()?)
    };
    if said.contains("-> error") {
        bail!("the work failed");
    }
    let cost = Cost { map: figure("map")?, zap: figure("zap")?, free: figure("free")? };
    ensure!(cost.map != 0 && cost.zap != 0 && cost.free != 0, "it costs nothing?");
    Ok(cost)
}

/// What the machine runs.
fn script() -> String {
    let probes: String = FUNCTIONS
        .iter()
        .map(|name| {
            format!(
                "echo 'p:cost/{name} {name} %di %si %dx %cx' >>$trace/kprobe_events\n\
                 echo 'r:cost/{name}_return {name} $retval' >>$trace/kprobe_events\n"
            )
        })
        .collect();
    format!(
        r#"
trace=/sys/kernel/tracing
work() {{ lab-vmm /in/work >/out/$1 2>&1; }}
# Waits until a file has a line; not where the program has ended.
awaits() {{
  for second in $(seq 600); do
    grep -q "$1" $2 && return 0
    kill -0 $3 2>/dev/null || return 1
    sleep 1
  done
  return 1
}}
# NAME, what it says when it watches, PROGRAM...
beside() {{
  name=$1 words=$2
  shift 2
  "$@" >/tmp/$name.log 2>&1 </dev/null &
  pid=$!
  if awaits "$words" /tmp/$name.log $pid; then
    sleep 1
    work $name
  else
    echo "cannot: $(tail -n 3 /tmp/$name.log | tr '\n' ' ')" >/out/$name
  fi
  kill -INT $pid 2>/dev/null
  wait $pid
  cp /tmp/$name.log /out/$name.log
}}
work nothing
beside empty '"type":"start"' septwatch-empty watch --json
beside septwatch '"type":"start"' septwatch watch --json
if [ -x /usr/bin/bpftrace ]; then
  beside bpftrace attached /usr/bin/bpftrace /in/seamcalls.bt
else
  echo 'cannot: it is not on this host' >/out/bpftrace
fi
{probes}
echo 1 >$trace/events/cost/enable
echo 1 >$trace/events/kmem/mm_page_free/enable
work kprobes
echo 0 >$trace/events/cost/enable
echo 0 >$trace/events/kmem/mm_page_free/enable
echo >$trace/trace
records() {{
  name=$1
  shift
  if [ -x $1 ]; then
    "$@" >/tmp/$name.log 2>&1 </dev/null &
    pid=$!
    sleep 20
    if kill -0 $pid 2>/dev/null; then
      work $name
      kill -INT $pid
    else
      echo "cannot: $(tail -n 3 /tmp/$name.log | tr '\n' ' ')" >/out/$name
    fi
    wait $pid
    cp /tmp/$name.log /out/$name.log
  else
    echo 'cannot: it is not on this host' >/out/$name
  fi
}}
records perf /usr/bin/perf record -a -e 'cost:*' -e kmem:mm_page_free -o /tmp/perf.data
records trace-cmd /usr/bin/trace-cmd record -q -e cost -e kmem:mm_page_free -o /tmp/trace.dat
"#
    )
}

/// Programs of this host that the machine gets, where they are.
pub const TOOLS: [&str; 3] = ["/usr/bin/bpftrace", "/usr/bin/perf", "/usr/bin/trace-cmd"];

/// Where the septwatch lies whose programs do nothing.
pub fn stripped_empty() -> PathBuf {
    guest::target_folder().join("lab/septwatch-empty")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn figures_are_read_from_what_the_vmm_says() {
        let said = "1.0 main cycle a 512 512 7 -> ok map=4100 zap=6200\n1.1 main pages 1024 7 -> ok fill=900 free=700\n";
        assert_eq!(cost(said).unwrap(), Cost { map: 4100, zap: 6200, free: 700 });
        for bad in ["", "map=1 zap=2", "a -> error EIO\nmap=1 zap=2 free=3", "map=0 zap=2 free=3"] {
            assert!(cost(bad).is_err(), "{bad}");
        }
    }
}
