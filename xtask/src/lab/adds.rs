//! What septwatch adds to KVM's paths, against a bound: the work is done before it watches and again while it does, and
//! the machine counts instructions.

use serde::Deserialize;

use super::oracle::Finding;

/// Most instructions that it may add for each page.
#[derive(Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Adds {
    /// To a map.
    pub map: u64,
    /// To a zap, with the release of the page.
    pub zap: u64,
    /// To the release of a page that no TD has.
    pub free: u64,
}

/// By what the VMM says of `cycle` and of `pages`, each of which it does twice.
pub fn bounded(most: Adds, vmm: &str) -> Finding {
    let figures = [("map", most.map), ("zap", most.zap), ("free", most.free)].map(|(name, most)| {
        let told: Vec<u64> = vmm.split_whitespace().filter_map(|word| figure(word, name)).collect();
        let added = match told[..] {
            [before, with] => Some(i128::from(with) - i128::from(before)),
            _ => None,
        };
        // Nothing added: it did not watch.
        let holds = added.is_some_and(|added| 0 < added && added <= i128::from(most));
        let found =
            added.map_or_else(|| format!("{name}: not told twice"), |added| format!("{name} +{added}"));
        (holds, format!("{name} +{most} at most"), found)
    });
    Finding {
        what: "instructions added",
        equal: figures.iter().all(|(holds, ..)| *holds),
        expected: figures.iter().map(|(_, expected, _)| expected.clone()).collect(),
        found: figures.into_iter().map(|(.., found)| found).collect(),
    }
}

fn figure(word: &str, name: &str) -> Option<u64> {
    word.strip_prefix(name)?.strip_prefix('=')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VMM: &str = "\
1.0 vmm cycle a 512 512 3 -> ok map=7000 zap=8000
1.1 vmm pages 1024 3 -> ok fill=900 free=700
2.0 vmm cycle a 512 512 3 -> ok map=7500 zap=9500
2.1 vmm pages 1024 3 -> ok fill=900 free=800
";

    #[test]
    fn what_is_added_is_bounded_and_not_nothing() {
        let most = Adds { map: 500, zap: 1500, free: 100 };
        assert!(bounded(most, VMM).equal, "{:?}", bounded(most, VMM).found);
        for broken in [Adds { map: 499, ..most }, Adds { zap: 1499, ..most }, Adds { free: 99, ..most }] {
            assert!(!bounded(broken, VMM).equal);
        }
        let once: String = VMM.lines().take(2).map(|line| format!("{line}\n")).collect();
        assert!(!bounded(most, &once).equal);
        assert!(!bounded(most, &(once.clone() + &once)).equal, "nothing added");
    }
}
