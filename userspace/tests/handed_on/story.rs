//! A recording that is put together: one TD, a zap that fails, and what comes of it. Its verdicts are what the ledger
//! finds in its page records.

use std::path::Path;

use septwatch::{
    model::rerun::{Found, Rerun},
    recording::{
        State,
        codec::Encoder,
        header::{Clock, Counted, End, Header, HookFact, KernelFacts, Note, Streams},
        schema,
        writer::{Packer, Writer},
    },
    source::event::Event,
};
use septwatch_common::{
    Leaf, Life, Violation,
    wire::{
        Frame, Header as WireHeader, Hook, Kind, LetGo, SeamcallErr, SeamcallOk, TdLife, VERSION,
        ViolationEvent,
    },
    zap::PFN_UNKNOWN,
};
use zerocopy::FromZeros as _;

pub const TDR: u64 = 0x1000;
pub const PFN: u64 = 0x5000;
pub const GFN: u64 = 0x100;
/// TDX_EPT_ENTRY_STATE_INCORRECT, operand RCX.
pub const REFUSED: u64 = 0xc000_0b0d_0000_0001;
const NAME: [u8; 16] = *b"qemu-system-x86\0";

/// Records, one after the other.
#[derive(Default)]
pub struct Story {
    pub events: Vec<(Event, Option<Note>)>,
    rerun: Rerun,
    now_ns: u64,
    seqs: [u64; 2],
}

impl Story {
    pub fn new() -> Self {
        Self { now_ns: 5_000_000_000, ..Self::default() }
    }

    fn header(&mut self, kind: Kind, vital: bool) -> WireHeader {
        let seq = &mut self.seqs[usize::from(!vital)];
        *seq += 1;
        WireHeader {
            time_ns: self.now_ns,
            seq: *seq - 1,
            tgid: 4242,
            cpu: 0,
            kind: kind as u8,
            version: VERSION,
        }
    }

    /// Time goes on.
    pub fn wait(&mut self, ns: u64) {
        self.now_ns += ns;
    }

    /// A SEAMCALL that took 500 ns, with what the ledger finds in it.
    pub fn call(&mut self, leaf: Leaf, pfn: u64, gfn: u64, status: u64) {
        self.wait(1_000);
        let header = self.header(if status == 0 { Kind::SeamcallOk } else { Kind::SeamcallErr }, false);
        let names_td = !matches!(leaf, Leaf::PhymemPageWbinvd | Leaf::PhymemPageReclaim);
        let call = SeamcallOk {
            header,
            tdr: if names_td { TDR } else { PFN_UNKNOWN },
            pfn,
            gfn,
            leaf: leaf as u8,
            level: 0,
            hkid: u16::from(leaf == Leaf::MngCreate) * 33,
            tid: 4243,
            took_ns: 500,
            zero: 0,
        };
        let (ext_err1, ext_err2) = if status == REFUSED { (PFN << 12 | 0x80, 0x400) } else { (0, 0) };
        self.page(Event::Call(SeamcallErr { call, status, ext_err1, ext_err2 }));
    }

    pub fn frame(&mut self, pfn: u64, hook: Hook) {
        self.wait(1_000);
        let header = self.header(Kind::Frame, false);
        self.page(Event::Frame(Frame { header, pfn, tid: 4243, hook: hook as u8, zero: [0; 3] }));
    }

    fn page(&mut self, event: Event) {
        let found = self.rerun.apply(&event);
        self.events.push((event, None));
        if let Some(found) = found {
            self.violation(&found);
        }
    }

    fn violation(&mut self, found: &Found) {
        let Found { td_id, tdr, hook, finding, .. } = *found;
        let mut event = self.empty();
        (event.pfn, event.gfn, event.line, event.zap) =
            (finding.pfn, finding.gfn, finding.line.0, finding.zap);
        (event.released_ns, event.frames, event.tdr, event.td_id) =
            (finding.released_ns, finding.frames, tdr, td_id);
        (event.violation, event.hook, event.suspect) = (finding.violation as u8, hook, finding.suspect.0);
        if finding.violation == Violation::FreedWhileBlocked {
            event.let_go = LetGo {
                time_ns: self.now_ns - 900,
                inode: 7,
                index: 256,
                references: 2,
                tid: 4243,
                op: 1,
                zero: [0; 7],
            };
        }
        self.told(event);
    }

    /// KVM calls the VM bugged, which page records do not tell.
    pub fn bugged(&mut self, status: u64) {
        self.wait(1_000);
        let mut event = self.empty();
        (event.zap.failed_ns, event.zap.failed_status) = (self.now_ns - 1_000, status);
        event.zap.failed_leaf = Leaf::MemPageRemove as u8;
        (event.pfn, event.tdr, event.td_id, event.frames) = (PFN_UNKNOWN, TDR, 1, 3);
        (event.violation, event.hook) = (Violation::VmBugged as u8, Hook::MakeAllCpusRequest as u8);
        self.told(event);
    }

    fn empty(&mut self) -> ViolationEvent {
        let mut event = ViolationEvent::new_zeroed();
        event.header = self.header(Kind::Violation, true);
        (event.tid, event.comm, event.cgroup) = (4243, NAME, 77);
        (event.kernel_frames, event.user_frames) = (2, 1);
        event
    }

    fn told(&mut self, event: ViolationEvent) {
        let kernel = vec!["free_unref_folios+0x454".to_owned(), "kvm_gmem_fallocate+0x1a0".to_owned()];
        let places = Note::Places { kernel, user: vec!["libc.so.6+0x11e8f".to_owned()] };
        self.events.push((Event::Violation(Box::new(event)), Some(places)));
    }

    pub fn life(&mut self, life: Life, lent: u64) {
        let header = self.header(Kind::TdLife, true);
        let event = TdLife {
            header,
            tdr: TDR,
            cgroup: 77,
            lent,
            id: 1,
            tid: 4243,
            suspect: 0,
            td: 1,
            hkid: 33,
            life: life as u8,
            zero: [0; 7],
            comm: NAME,
        };
        self.events.push((Event::Life(event), None));
    }

    /// The whole of it: other pages live and go, one zap fails at REMOVE, its page is freed and used again.
    pub fn told_whole() -> Self {
        let mut story = Self::new();
        story.call(Leaf::MngCreate, TDR, 0, 0);
        story.life(Life::Created, 0);
        story.call(Leaf::MrFinalize, PFN_UNKNOWN, 0, 0);
        story.life(Life::Finalized, 1);
        for n in 0..50 {
            story.call(Leaf::MemPageAug, 0x9000 + n, 0x900 + n, 0);
        }
        story.call(Leaf::MemPageAug, PFN, GFN, 0);
        for n in 0..50 {
            story.call(Leaf::MemRangeBlock, PFN_UNKNOWN, 0x900 + n, 0);
            story.call(Leaf::MemTrack, PFN_UNKNOWN, 0, 0);
            story.call(Leaf::MemPageRemove, 0x9000 + n, 0x900 + n, 0);
            story.call(Leaf::PhymemPageWbinvd, 0x9000 + n, 0, 0);
        }
        story.wait(2_000_000);
        story.call(Leaf::MemRangeBlock, PFN_UNKNOWN, GFN, 0);
        story.call(Leaf::MemTrack, PFN_UNKNOWN, 0, 0);
        story.call(Leaf::MemPageRemove, PFN_UNKNOWN, GFN, REFUSED);
        story.bugged(REFUSED);
        story.wait(3_000_000);
        story.frame(PFN, Hook::PageFree);
        story.wait(40_000);
        story.frame(PFN, Hook::PageAlloc);
        story
    }

    pub fn write(&self, path: &Path) {
        let bound =
            |name: &str| HookFact { name: name.to_owned(), bound: Some("x".to_owned()), missing: None };
        let missing =
            HookFact { missing: Some("not there".to_owned()), bound: None, ..bound("kvm_gmem_error_folio") };
        let header = Header {
            septwatch: "0.0.1".to_owned(),
            latency: true,
            kernel: KernelFacts {
                release: "6.18.0-golden".to_owned(),
                version: "#1 somebody@somehost".to_owned(),
                build_id: Some("00112233445566778899aabbccddeeff00112233".to_owned()),
                tdx_module: Some("1.5.06".to_owned()),
            },
            plan: vec![bound("tdh_mem_page_aug"), bound("mm_page_free"), missing],
            clock: Clock {
                monotonic_ns: 5_000_000_000,
                realtime_ns: 1_795_570_394_000_000_000,
                boottime_ns: 0,
            },
            schema: schema::current(),
            ..Header::default()
        };
        let mut packer = Packer::new().unwrap();
        let mut writer = Writer::begin(Vec::new(), &mut packer, &header, &State::default()).unwrap();
        let mut encoder = Encoder::default();
        encoder.note(br#"{"note":"step","time_ns":5000000000,"text":"it begins"}"#);
        for (event, places) in &self.events {
            encoder.event(event);
            if let Some(places) = places {
                encoder.note(&serde_json::to_vec(places).unwrap());
            }
        }
        let (raw, records) = encoder.take();
        writer.records(&mut packer.pack(&raw, records).unwrap()).unwrap();
        let [vital, pages] = self.seqs.map(|produced| [produced, 0]);
        let counted = Counted { cpus: vec![Streams { vital, pages }], ..Counted::default() };
        writer.end(&mut packer, &End { counted: Some(counted), ..End::default() }).unwrap();
        std::fs::write(path, writer.output()).unwrap();
    }
}
