//! The kernel's own lists of eBPF objects: what a process has loaded, and whether it is still there.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use aya::{
    maps::{MapInfo, loaded_maps},
    programs::{ProgramInfo, loaded_links, loaded_programs},
};

use super::PATIENCE;

/// eBPF objects, by the kernel's numbers: it counts up and does not give a number again before it has given two
/// thousand million others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// Maps.
    pub maps: BTreeSet<u32>,
    /// Links: programs that are attached.
    pub links: BTreeSet<u32>,
}

impl Objects {
    /// Those that a process has open.
    pub fn of(pid: u32) -> Self {
        let mut objects = Self::default();
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return objects };
        for file in files.flatten() {
            // A descriptor may be closed meanwhile.
            let Ok(info) = fs::read_to_string(file.path()) else { continue };
            let number = |key: &str| {
                let line = info.lines().find_map(|line| line.strip_prefix(key))?;
                line.trim().parse::<u32>().ok()
            };
            // A link names its program too.
            if let Some(link) = number("link_id:") {
                objects.links.insert(link);
            } else if let Some(program) = number("prog_id:") {
                objects.programs.insert(program);
            } else if let Some(map) = number("map_id:") {
                objects.maps.insert(map);
            }
        }
        objects
    }

    /// Those of these that the kernel still has.
    pub fn left(&self) -> Self {
        // What goes away between its number and the look at it gives an error: it is gone.
        Self {
            programs: loaded_programs().flatten().map(|program| program.id()).collect(),
            maps: loaded_maps().flatten().map(|map| map.id()).collect(),
            links: loaded_links().flatten().map(|link| link.id()).collect(),
        }
        .both(self)
    }

    fn both(&self, other: &Self) -> Self {
        let both = |one: &BTreeSet<u32>, two: &BTreeSet<u32>| one.intersection(two).copied().collect();
        Self {
            programs: both(&self.programs, &other.programs),
            maps: both(&self.maps, &other.maps),
            links: both(&self.links, &other.links),
        }
    }

    /// Fails the test if the kernel keeps any of these. It lets go of them a moment after their last user.
    ///
    /// # Panics
    /// It keeps them.
    #[track_caller]
    pub fn must_go(&self) {
        let start = Instant::now();
        while self.left() != Self::default() {
            assert!(start.elapsed() < PATIENCE, "the kernel still has {:?}", self.left());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Instructions of each program of a process after the verifier dropped what cannot be reached, by the name that the
/// kernel keeps (15 characters).
pub fn sizes(pid: u32) -> Vec<(String, u32)> {
    programs(pid, |program| Some(program.size_translated()? / 8))
}

/// Instructions that the verifier followed to accept each program of a process, by the same names.
pub fn verified(pid: u32) -> Vec<(String, u32)> {
    programs(pid, ProgramInfo::verified_instruction_count)
}

fn programs(pid: u32, what: impl Fn(&ProgramInfo) -> Option<u32>) -> Vec<(String, u32)> {
    let own = Objects::of(pid).programs;
    let mut programs: Vec<_> = loaded_programs()
        .flatten()
        .filter(|program| own.contains(&program.id()))
        .filter_map(|program| Some((program.name_as_str()?.to_owned(), what(&program)?)))
        .collect();
    programs.sort_unstable();
    programs
}

/// Whether a process has a map of this name.
pub fn has_map(pid: u32, name: &str) -> bool {
    let named = |id: &u32| MapInfo::from_id(*id).is_ok_and(|map| map.name_as_str() == Some(name));
    Objects::of(pid).maps.iter().any(named)
}
