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
use super::{guest, machine, runner};

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

/// Somebody who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Watcher {
    /// Nobody: what the work takes by itself
    Nothing,
    /// septwatch with programs that do nothing
    Empty,
    /// septwatch with programs that do the least that could keep a ledger
    Least,
    /// septwatch
    Septwatch,
    /// bpftrace with maps of lent frames
    Bpftrace,
    /// Kprobes and kretprobes, recorded by ftrace
    Kprobes,
    /// perf record of the same
    Perf,
    /// trace-cmd record of the same
    TraceCmd,
}

impl Watcher {
    /// Name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing attached",
            Self::Empty => "empty programs at septwatch's hooks",
            Self::Least => "the least that could keep a ledger",
            Self::Septwatch => "septwatch",
            Self::Bpftrace => "bpftrace, maps of lent frames",
            Self::Kprobes => "ftrace's kprobes and kretprobes, recorded",
            Self::Perf => "perf record of the same",
            Self::TraceCmd => "trace-cmd record of the same",
        }
    }

    /// How it is run beside the work: see the functions of the machine's script.
    const fn line(self) -> &'static str {
        match self {
            Self::Nothing => "work nothing",
            Self::Empty => r#"beside empty '"type":"start"' septwatch-empty watch --json"#,
            Self::Least => r#"beside least '"type":"start"' septwatch-least watch --json"#,
            Self::Septwatch => r#"beside septwatch '"type":"start"' septwatch watch --json"#,
            Self::Bpftrace => "beside bpftrace attached /usr/bin/bpftrace /in/seamcalls.bt",
            Self::Kprobes => "traced work kprobes",
            // These say nothing when they begin: a while is long enough.
            Self::Perf => {
                "beside perf '' /usr/bin/perf record -a -e 'cost:*' -e kmem:mm_page_free -o /tmp/perf.data"
            }
            Self::TraceCmd => {
                "beside trace-cmd '' /usr/bin/trace-cmd record -q -e cost -e kmem:mm_page_free -o /tmp/trace.dat"
            }
        }
    }

    /// Which programs septwatch is built with for it, if others than its own.
    pub const fn programs(self) -> Option<&'static str> {
        match self {
            Self::Empty => Some("empty"),
            Self::Least => Some("least"),
            _ => None,
        }
    }

    /// Its file among what the machine leaves.
    fn file(self) -> &'static str {
        self.line()
            .split_whitespace()
            .find(|word| !matches!(*word, "work" | "beside" | "traced"))
            .unwrap_or("")
    }
}

/// Instructions for a page, with one watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub map: u64,
    pub zap: u64,
    pub free: u64,
}

/// What came of one watcher: its cost, or why it cannot be used in this machine.
pub type Measured = (Watcher, Result<Cost, String>);

/// Measures with each of these watchers; `others` are the septwatches with other programs, by [`Watcher::programs`].
///
/// # Errors
/// The machine cannot be started, or the work fails.
pub fn run(
    image: &Image,
    watchers: &[Watcher],
    septwatch: &Path,
    others: &[(&str, PathBuf)],
) -> Result<Vec<Measured>> {
    let wanted = Wanted { tools: true, ..Wanted::default() };
    let machines = Machines::prepare_with(image, septwatch, others, wanted)?;
    let input = [("run", script(watchers)), ("work", WORK.to_owned()), ("seamcalls.bt", BPFTRACE.to_owned())];
    let (folder, end) = runner::session(&machines, wanted, &input, 1, |text| print!("{text}"))?;
    runner::done(&end)?;
    let out = folder.path().join("out");
    if let Ok(programs) = fs::read_to_string(out.join("programs")) {
        print!("\n{programs}");
    }
    watchers
        .iter()
        .map(|watcher| {
            let name = watcher.file();
            let said = fs::read_to_string(out.join(name));
            let said = said.with_context(|| format!("{name} left nothing"))?;
            if let Some(why) = said.strip_prefix("cannot: ") {
                return Ok((*watcher, Err(why.trim().to_owned())));
            }
            cost(&said).with_context(|| format!("{name}: {said}")).map(|cost| (*watcher, Ok(cost)))
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
fn script(watchers: &[Watcher]) -> String {
    let probes: String = FUNCTIONS
        .iter()
        .map(|name| {
            format!(
                "echo 'p:cost/{name} {name} %di %si %dx %cx' >>$trace/kprobe_events\n\
                 echo 'r:cost/{name}_return {name} $retval' >>$trace/kprobe_events\n"
            )
        })
        .collect();
    let lines: Vec<_> = watchers.iter().map(|watcher| watcher.line()).collect();
    format!(
        r#"
trace=/sys/kernel/tracing
{probes}
work() {{ lab-vmm /in/work >/out/$1 2>&1; }}
# Waits until a file has a line, or for a while where none is to be waited for. False: the program has ended.
awaits() {{
  [ -n "$1" ] || {{ sleep 20; kill -0 $3 2>/dev/null; return; }}
  for second in $(seq 600); do
    kill -0 $3 2>/dev/null || return 1
    grep -q "$1" $2 && return 0
    sleep 1
  done
  return 1
}}
# COMMAND..., while ftrace records
traced() {{
  echo 1 >$trace/events/cost/enable
  echo 1 >$trace/events/kmem/mm_page_free/enable
  "$@"
  echo 0 >$trace/events/cost/enable
  echo 0 >$trace/events/kmem/mm_page_free/enable
  echo >$trace/trace
}}
# What the programs of a process took, by the kernel's statistics: the same work once more, which these make longer.
programs() {{
  echo 1 >/proc/sys/kernel/bpf_stats_enabled
  lab-vmm /in/work >/dev/null 2>&1
  echo 0 >/proc/sys/kernel/bpf_stats_enabled
  for file in $(grep -l run_cnt /proc/$1/fdinfo/*); do
    set -- $1 $(awk '/prog_tag/ {{ tag = $2 }} /run_time_ns/ {{ ns = $2 }} /run_cnt/ {{ n = $2 }} /verified/ {{ v = $2 }}
      END {{ print tag, ns, n, v }}' $file)
    name=$(grep -m 1 bpf_prog_$2_ /proc/kallsyms | awk '{{ sub("bpf_prog_[0-9a-f]*_", "", $3); print $3 }}')
    [ $4 -gt 1000 ] && echo "$name: $4 runs of $(($3 * {khz} / 1000000 / $4)) instructions, $5 verified"
  done | sort -u >/out/programs
}}
# NAME, what it says when it watches, PROGRAM...
beside() {{
  name=$1 words=$2
  shift 2
  if [ "${{1#/}}" != "$1" ] && [ ! -x $1 ]; then
    echo 'cannot: it is not on this host' >/out/$name
    return
  fi
  "$@" >/tmp/$name.log 2>&1 </dev/null &
  pid=$!
  if awaits "$words" /tmp/$name.log $pid; then
    sleep 1
    work $name
    [ $name = septwatch ] && programs $pid
  else
    echo "cannot: $(tail -n 3 /tmp/$name.log | tr '\n' ' ')" >/out/$name
  fi
  kill -INT $pid 2>/dev/null
  wait $pid
  cp /tmp/$name.log /out/$name.log
}}
{lines}
"#,
        khz = machine::TSC_KHZ,
        lines = lines.join("\n")
    )
}

/// Programs of this host that the machine gets, where they are.
pub const TOOLS: [&str; 3] = ["/usr/bin/bpftrace", "/usr/bin/perf", "/usr/bin/trace-cmd"];

/// Where a septwatch with other programs lies for the machine.
pub fn stripped(programs: &str) -> PathBuf {
    guest::target_folder().join(format!("lab/septwatch-{programs}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use std::collections::BTreeSet;

    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn everybody_has_a_file_of_his_own() {
        let files: BTreeSet<_> = Watcher::value_variants().iter().map(|watcher| watcher.file()).collect();
        assert_eq!(files.len(), Watcher::value_variants().len());
        assert!(!files.contains("") && script(&[Watcher::Perf]).contains("/usr/bin/perf record"));
    }

    #[test]
    fn figures_are_read_from_what_the_vmm_says() {
        let said = "1.0 main cycle a 512 512 7 -> ok map=4100 zap=6200\n1.1 main pages 1024 7 -> ok fill=900 free=700\n";
        assert_eq!(cost(said).unwrap(), Cost { map: 4100, zap: 6200, free: 700 });
        for bad in ["", "map=1 zap=2", "a -> error EIO\nmap=1 zap=2 free=3", "map=0 zap=2 free=3"] {
            assert!(cost(bad).is_err(), "{bad}");
        }
    }
}
