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
    /// To the same while nothing is lent, more or less: chance. The work on `pages` is done between the two others then.
    pub resting: Option<u64>,
}

/// By what the VMM says of `cycle` and of `pages`, each of which it does twice, or of `pages` three times.
pub fn bounded(most: Adds, vmm: &str) -> Finding {
    let figures = [("map", most.map, None), ("zap", most.zap, None), ("free", most.free, most.resting)];
    let figures = figures.map(|(name, most, chance)| {
        let told: Vec<u64> = vmm.split_whitespace().filter_map(|word| figure(word, name)).collect();
        let is_whole = match (&told[..], chance) {
            ([_, _], None) => true,
            ([before, resting, _], Some(chance)) => before.abs_diff(*resting) <= chance,
            _ => false,
        };
        let added = match told[..] {
            [before, .., with] if is_whole => Some(i128::from(with) - i128::from(before)),
            _ => None,
        };
        // Nothing added: it did not watch.
        let holds = added.is_some_and(|added| 0 < added && added <= i128::from(most));
        let found = added.map_or_else(|| format!("{name}: {told:?}"), |added| format!("{name} +{added}"));
        (holds, format!("{name} +{most} at most"), found)
    });
    Finding {
        what: "instructions added",
        equal: figures.iter().all(|(holds, ..)| *holds),
        expected: figures.iter().map(|(_, expected, _)| expected.clone()).collect(),
        found: figures.into_iter().map(|(.., found)| found).collect(),
    }
}

/// That no TD began before releases were watched, by what septwatch complains of.
pub fn waits(complaints: &str) -> Finding {
    let late = complaints.lines().filter(|line| line.contains("began before releases were watched"));
    let found: Vec<String> = late.map(str::to_owned).collect();
    Finding { what: "TDs that did not wait", equal: found.is_empty(), expected: Vec::new(), found }
}

/// That a TD's faults and zaps take at most so many per cent longer, by the second `cycle` of what the VMM says than by the
/// first.
pub fn slower(most: u64, vmm: &str) -> Finding {
    let told: Vec<u64> = vmm.split_whitespace().filter_map(|word| figure(word, "each")).collect();
    let held = match told[..] {
        [before, with] => before != 0 && with * 100 <= before * (100 + most),
        _ => false,
    };
    Finding {
        what: "a TD's faults and zaps, slower",
        equal: held,
        expected: vec![format!("{most} % at most")],
        found: vec![format!("instructions a page: {told:?}")],
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
        let most = Adds { map: 500, zap: 1500, free: 100, resting: None };
        assert!(bounded(most, VMM).equal, "{:?}", bounded(most, VMM).found);
        for broken in [Adds { map: 499, ..most }, Adds { zap: 1499, ..most }, Adds { free: 99, ..most }] {
            assert!(!bounded(broken, VMM).equal);
        }
        let once: String = VMM.lines().take(2).map(|line| format!("{line}\n")).collect();
        assert!(!bounded(most, &once).equal);
        assert!(!bounded(most, &(once.clone() + &once)).equal, "nothing added");
    }

    #[test]
    fn slower_is_the_second_against_the_first() {
        let vmm = |with: u64| format!("map=1 zap=1 each=1000\nmap=1 zap=1 each={with}\n");
        assert!(slower(10, &vmm(1100)).equal && slower(10, &vmm(900)).equal);
        assert!(!slower(10, &vmm(1101)).equal);
        assert!(!slower(10, "each=1000").equal && !slower(10, "each=0 each=0").equal);
    }

    #[test]
    fn resting_is_nothing_added_and_who_began_early_is_told() {
        let most = Adds { map: 500, zap: 1500, free: 100, resting: Some(5) };
        let rested = |free: u64| {
            VMM.replace("\n2.0", &format!("\n1.2 vmm pages 1024 3 -> ok fill=9 free={free}\n2.0"))
        };
        for free in [695, 700, 705] {
            assert!(bounded(most, &rested(free)).equal);
        }
        for free in [694, 706, 800] {
            assert!(!bounded(most, &rested(free)).equal);
        }
        assert!(!bounded(most, VMM).equal && !bounded(Adds { resting: None, ..most }, &rested(700)).equal);
        let late = "septwatch: 1 TDs began before releases were watched: what came back was not seen\n";
        assert!(waits("septwatch: else\n").equal && !waits(late).equal);
    }
}
