//! A scenario in which septwatch is killed again and again while faults are injected: what a machine runs for it.

use std::fmt::Write as _;

use serde::Deserialize;

/// How often, and when.
#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
pub struct Agents {
    pub kills: u32,
    /// Of the times that they live.
    pub seed: u64,
}

/// The longest that one lives, in milliseconds: from before it has taken over to long after.
const LONGEST: u64 = 2000;

/// The first watches before the VMM begins; the last is left alone, and is asked to end when the VMM has. Each has
/// files of its own, for a kill cuts lines. The VMM goes on until `/tmp/killed` is there.
const RUN: &str = "\
agents=0
start() {
  agents=$((agents + 1))
  septwatch watch --json >/out/agent.$agents.json 2>/out/agent.$agents.err &
  agent=$!
}
watching() {
  for tenth in $(seq 6000); do
    grep -q '\"type\":\"start\"' /out/agent.$agents.json && return 0
    kill -0 $agent 2>/dev/null || return 1
    usleep 100000
  done
  return 1
}
start
watching || echo 'the first agent did not start' >>/out/septwatch.err
lab-vmm /in/script >/out/vmm 2>&1 &
vmm=$!
for ms in TIMES; do
  usleep ${ms}000
  kill -9 $agent || echo \"agent $agents had ended\" >>/out/septwatch.err
  wait $agent
  start
done
watching || echo 'the last agent did not start' >>/out/septwatch.err
touch /tmp/killed
wait $vmm
echo $? >/out/vmm.code
sleep 1
kill -TERM $agent
wait $agent
echo $? >/out/septwatch.code
for agent in $(seq $agents); do
  cat /out/agent.$agent.json
  echo
  cat /out/agent.$agent.err >>/out/septwatch.err
done >/out/septwatch.json
";

impl Agents {
    /// The machine's `/in/run`.
    pub fn script(self) -> String {
        let mut times = String::new();
        let mut random = self.seed.max(1);
        for _ in 0..self.kills {
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let _ = write!(times, "{} ", random % LONGEST + 1);
        }
        RUN.replace("TIMES", times.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_the_seeds() {
        let script = |kills, seed| Agents { kills, seed }.script();
        assert_eq!(script(20, 7), script(20, 7));
        assert_ne!(script(20, 7), script(20, 8));
        let line = script(20, 7).lines().find_map(|line| line.strip_prefix("for ms in ").map(str::to_owned));
        let times: Vec<u64> = line
            .unwrap_or_default()
            .trim_end_matches("; do")
            .split(' ')
            .filter_map(|time| time.parse().ok())
            .collect();
        assert_eq!(times.len(), 20);
        assert!(times.iter().all(|time| (1..=LONGEST).contains(time)));
    }
}
