//! What the demo can act out. A scenario causes things and says in plain words what it does; what is true is in the
//! host's log afterwards.

use septwatch_common::Leaf;

use super::{
    memory::Memory,
    module::{Action, Config, Fault, status},
    storm,
    vmm::{ControlPage, FIRST_GFN, Flaw, Host, Steps, Td, Truth, VmmError},
};

/// A frame that was freed too early, and who got it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reused {
    /// The frame.
    pub pfn: u64,
}

/// What was acted out.
#[derive(Clone, Debug, Default)]
pub struct Acted {
    /// What is true.
    pub truths: Vec<Truth>,
    /// Frames of which the scenario itself knows that they were reused.
    pub reused: Vec<Reused>,
}

/// Where a scenario is acted out.
pub struct Stage<'a> {
    /// The host, with its module.
    pub host: &'a Host,
    /// Told what happens next.
    pub say: &'a (dyn Fn(&str) + Sync),
    /// Waits as long as a VMM takes from one system call to the next: 8 ms were seen between a failing conversion and
    /// the punch after it.
    pub pause: &'a (dyn Fn() + Sync),
    /// Whether somebody stopped the VMM in between, and wants it to leave things as they are.
    pub told_to_mend: &'a (dyn Fn() -> bool + Sync),
    /// Decides what a storm does.
    pub seed: u64,
}

/// Something that the demo can act out.
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// What it shows.
    pub summary: &'static str,
    /// Whether every SEAMCALL is worth a line.
    pub every_call: bool,
    act: fn(&Stage<'_>) -> Result<Acted, VmmError>,
}

/// Pages of guest memory in the small scenarios.
const PAGES: usize = 16;
/// Pages that a scenario brings in to get one frame again.
const HUNT: usize = 512;
/// Pages that it has freed for that, one after the other.
const TRIES: u64 = 8;

macro_rules! scenarios {
    ($($name:literal $act:ident $every:literal $summary:literal;)*) => {
        /// All of them, in the order of the demo's help.
        pub const SCENARIOS: &[Scenario] =
            &[$(Scenario { name: $name, summary: $summary, every_call: $every, act: $act }),*];
    };
}

scenarios! {
    "clean" clean true "the whole life of a TD, nothing wrong";
    "busy" busy true "SEAMCALLs that answer BUSY and succeed when tried again: normal traffic";
    "zap-failed" zap_failed true "REMOVE fails during a conversion; the page is kept";
    "zap-failed-punch" zap_failed_punch true "REMOVE fails, and the VMM, which does not know, punches the page out";
    "freed-while-mapped" freed_while_mapped true "a page is punched out without being zapped";
    "freed-while-blocked" freed_while_blocked true "a page is punched out after BLOCK and TRACK, without REMOVE";
    "freed-unflushed" freed_unflushed true "a page is punched out after REMOVE, without WBINVD";
    "freed-while-owned" freed_while_owned true "an S-EPT page is freed while the S-EPT uses it";
    "reused-while-mapped" reused_while_mapped true "REMOVE fails, the page is freed, and the host gets it again";
    "map-failed" map_failed true "the module refuses a page";
    "double-map" double_map true "the module maps one frame at two guest frames";
    "out-of-order" out_of_order true "REMOVE succeeds without BLOCK";
    "teardown-leak" teardown_leak true "an S-EPT page is not reclaimed when the TD ends";
    "storm" storm false "several TDs, 200,000 random correct operations, 100 faults among them";
}

/// The scenario of this name.
pub fn named(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

impl Scenario {
    /// Acts it out.
    ///
    /// # Errors
    /// The stage fails the scenario: see [`VmmError`].
    pub fn act(&self, stage: &Stage<'_>) -> Result<Acted, VmmError> {
        let mut acted = (self.act)(stage)?;
        acted.truths.extend(stage.host.log().take());
        Ok(acted)
    }

    /// A host for it.
    ///
    /// # Errors
    /// There is no memory of known frames, or a module runs already.
    pub fn host(&self, config: Config) -> Result<Host, VmmError> {
        let pages = if self.every_call { 64 } else { storm::Config::default().host_pages() };
        Host::new(config, pages, false)
    }
}

/// One fault more than any scenario announces, a page freed while mapped: what is true of it is kept secret.
///
/// # Errors
/// As for [`Scenario::act`].
pub fn one_more(stage: &Stage<'_>) -> Result<(), VmmError> {
    freed_while_mapped(stage)?;
    stage.host.log().take();
    Ok(())
}

fn running<'h>(stage: &Stage<'h>, pages: u64) -> Result<Td<'h>, VmmError> {
    let mut td = Td::create(stage.host, PAGES, 1)?;
    // What a scenario does not ask to fail succeeds; where it does, the outcome is in the log.
    let _ = td.add(FIRST_GFN)?;
    td.finalize()?;
    for gfn in FIRST_GFN + 1..=FIRST_GFN + pages {
        let _ = td.fault(gfn)?;
    }
    Ok(td)
}

fn fail(stage: &Stage<'_>, leaf: Leaf, status: u64) {
    stage.host.module().inject(Fault::next(leaf, Action::Fail(status)));
}

fn end(stage: &Stage<'_>, mut td: Td<'_>) -> Result<(), VmmError> {
    (stage.say)(
        "Afterwards: the module is made to give up what it still holds, and the TD ends in good order.",
    );
    td.repair()?;
    td.teardown(None)
}

fn clean(stage: &Stage<'_>) -> Result<Acted, VmmError> {
    (stage.say)(
        "A VMM creates a TD. KVM hands the module the TD's control pages and its first page of memory.",
    );
    let mut td = Td::create(stage.host, PAGES, 1)?;
    let _ = td.add(FIRST_GFN)?;
    td.finalize()?;
    (stage.say)("The guest runs and touches four pages: KVM maps each with TDH.MEM.PAGE.AUG.");
    for gfn in FIRST_GFN + 1..FIRST_GFN + 5 {
        let _ = td.fault(gfn)?;
    }
    (stage.say)(
        "Two pages become shared: KVM zaps them (BLOCK, TRACK, REMOVE, WBINVD). Then the VMM punches them out.",
    );
    td.zap(FIRST_GFN + 1, 2, Steps::ALL)?;
    td.punch(FIRST_GFN + 1, 2, Steps::ALL)?;
    (stage.say)(
        "The TD ends: its leaves are removed, its HKID is freed, its S-EPT and control pages are reclaimed.",
    );
    td.teardown(None)?;
    Ok(Acted::default())
}

fn busy(stage: &Stage<'_>) -> Result<Acted, VmmError> {
    (stage.say)("A TD runs. Its next AUG, BLOCK, TRACK and REMOVE each answer BUSY once.");
    let mut td = running(stage, 1)?;
    for leaf in [Leaf::MemPageAug, Leaf::MemRangeBlock, Leaf::MemTrack, Leaf::MemPageRemove] {
        fail(stage, leaf, status::busy_of(leaf));
    }
    let _ = td.fault(FIRST_GFN + 2)?;
    (stage.say)("KVM tries each again, as it does with BUSY, and the page is punched out in good order.");
    td.punch(FIRST_GFN + 2, 1, Steps::ALL)?;
    td.teardown(None)?;
    Ok(Acted::default())
}

fn zap_failed(stage: &Stage<'_>) -> Result<Acted, VmmError> {
    (stage.say)("A TD runs. One of its pages becomes shared, and the module refuses REMOVE.");
    let mut td = running(stage, 2)?;
    fail(stage, Leaf::MemPageRemove, status::EPT_ENTRY_STATE_INCORRECT | status::operand::RCX);
    td.zap(FIRST_GFN + 1, 1, Steps::ALL)?;
    (stage.say)("KVM gives the zap up. The page is still the guest_memfd's, and still the TD's.");
    end(stage, td)?;
    Ok(Acted::default())
}

fn zap_failed_punch(stage: &Stage<'_>) -> Result<Acted, VmmError> {
    (stage.say)("A TD runs. One of its pages becomes shared, and the module refuses REMOVE.");
    let mut td = running(stage, 2)?;
    fail(stage, Leaf::MemPageRemove, status::EPT_ENTRY_STATE_INCORRECT | status::operand::RCX);
    td.zap(FIRST_GFN + 1, 1, Steps::ALL)?;
    (stage.pause)();
    if (stage.told_to_mend)() {
        (stage.say)("The VMM goes on, told what happened: it leaves the page where it is.");
    } else {
        (stage.say)(
            "The VMM does not know, and punches the page out: the page allocator gets a page of the TD.",
        );
        td.punch(FIRST_GFN + 1, 1, Steps::ALL)?;
    }
    end(stage, td)?;
    Ok(Acted::default())
}

fn freed_while_mapped(stage: &Stage<'_>) -> Result<Acted, VmmError> {
    (stage.say)(
        "A TD runs. A bug: one of its pages is punched out of the guest_memfd, and nobody zaps it first.",
    );
    let mut td = running(stage, 2)?;
    td.punch(FIRST_GFN + 1, 1, Steps::NONE)?;
    end(stage, td)?;
    Ok(Acted::default())
}

fn freed_while_blocked(stage: &Stage<'_>) -> Result<Acted, VmmError> {
    (stage.say)("A TD runs. A bug: a page is blocked and tracked, then punched out without REMOVE.");
    let mut td = running(stage, 2)?;
    td.punch(FIRST_GFN + 1, 1, Steps::UNTIL_TRACK)?;
    end(stage, td)?;
    Ok(Acted::default())
}

fn freed_unflushed(stage: &Stage<'_>) -> Result<Acted, VmmError> {
    (stage.say)(
        "A TD runs. A bug: a page is removed, then punched out without writing its cache lines back.",
    );
    let mut td = running(stage, 2)?;
    td.punch(FIRST_GFN + 1, 1, Steps::UNTIL_REMOVE)?;
    end(stage, td)?;
    Ok(Acted::default())
}

fn freed_while_owned(stage: &Stage<'_>) -> Result<Acted, VmmError> {
    (stage.say)("A TD runs. A bug: the S-EPT page that maps its memory is given back to the host.");
    let mut td = running(stage, 2)?;
    td.free_sept_page(FIRST_GFN)?;
    (stage.say)("Afterwards: the TD ends in good order; the S-EPT page is reclaimed with the others.");
    td.teardown(None)?;
    Ok(Acted::default())
}

fn reused_while_mapped(stage: &Stage<'_>) -> Result<Acted, VmmError> {
    (stage.say)("A TD runs. A page becomes shared, and the module refuses REMOVE.");
    let mut td = running(stage, 0)?;
    let host_memory = Memory::new(HUNT)?;
    // Its page tables are made now: they would take frames while it hunts.
    host_memory.touch(0)?;
    for gfn in FIRST_GFN + 1..=FIRST_GFN + TRIES {
        let _ = td.fault(gfn)?;
        let pfn = td.frame(gfn)?;
        fail(stage, Leaf::MemPageRemove, status::EPT_ENTRY_STATE_INCORRECT | status::operand::RCX);
        td.zap(gfn, 1, Steps::ALL)?;
        (stage.pause)();
        (stage.say)(
            "The VMM does not know, and punches the page out: the page allocator gets a page of the TD.",
        );
        td.punch(gfn, 1, Steps::ALL)?;
        if let Some(pfn) = pfn
            && host_memory.hunt(pfn)?.is_some()
        {
            (stage.say)("This process asks for memory and is given that very frame.");
            end(stage, td)?;
            return Ok(Acted { reused: vec![Reused { pfn }], ..Acted::default() });
        }
        (stage.say)("Somebody else on this host was given that frame first. Once more, with another page.");
        host_memory.punch(1, HUNT - 1)?;
    }
    end(stage, td)?;
    Ok(Acted::default())
}

fn map_failed(stage: &Stage<'_>) -> Result<Acted, VmmError> {
    (stage.say)("A TD runs. The module refuses a page for it: it says that the page is somebody's already.");
    let mut td = running(stage, 1)?;
    fail(stage, Leaf::MemPageAug, status::PAGE_METADATA_INCORRECT | status::operand::R8);
    let _ = td.fault(FIRST_GFN + 2)?;
    end(stage, td)?;
    Ok(Acted::default())
}

fn double_map(stage: &Stage<'_>) -> Result<Acted, VmmError> {
    (stage.say)(
        "A TD runs. A module with a bug maps one of its frames a second time, at another guest frame.",
    );
    let mut td = running(stage, 2)?;
    let first = FIRST_GFN + 1;
    if let Some(pfn) = td.frame(first)? {
        let id = td.id();
        let _ = td.map_again(FIRST_GFN + 8, pfn, (id, first))?;
    }
    td.zap(FIRST_GFN + 8, 1, Steps::UNTIL_REMOVE)?;
    end(stage, td)?;
    Ok(Acted::default())
}

fn out_of_order(stage: &Stage<'_>) -> Result<Acted, VmmError> {
    (stage.say)(
        "A TD runs. KVM forgets to block a page before REMOVE, and a module with a bug lets it pass.",
    );
    let mut td = running(stage, 2)?;
    stage.host.module().inject(Fault::next(Leaf::MemPageRemove, Action::Unchecked));
    td.zap(FIRST_GFN + 1, 1, Steps { block: false, ..Steps::ALL })?;
    end(stage, td)?;
    Ok(Acted::default())
}

fn teardown_leak(stage: &Stage<'_>) -> Result<Acted, VmmError> {
    (stage.say)(
        "A TD runs and ends. KVM forgets to reclaim an S-EPT page: the TDR cannot be reclaimed then.",
    );
    let td = running(stage, 2)?;
    td.teardown(Some(Flaw::SkipReclaim(ControlPage::Sept)))?;
    (stage.say)("Afterwards: both are reclaimed after all.");
    stage.host.recover()?;
    Ok(Acted::default())
}

fn storm(stage: &Stage<'_>) -> Result<Acted, VmmError> {
    let config = storm::Config { seed: stage.seed, ..storm::Config::default() };
    (stage.say)(&format!(
        "{} TDs on {} threads do {} random operations, and {} things go wrong; seed {}.",
        config.tds * config.threads,
        config.threads,
        config.operations,
        config.faults,
        config.seed
    ));
    let report = storm::storm(stage.host, &config)?;
    (stage.say)(&format!(
        "Done: {} pages mapped, {} zapped, {} freed, {} calls answered BUSY.",
        report.maps, report.zaps, report.frees, report.busy
    ));
    Ok(Acted { truths: report.truths, ..Acted::default() })
}
