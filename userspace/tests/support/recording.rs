//! Recordings as a host would have made them: what happens goes through a ledger as in the kernel, which finds what it
//! finds, and everything is written by the recorder's own coder and writer.

use std::path::Path;

use septwatch::{
    model::store::Ledger,
    recording::{
        State,
        codec::Encoder,
        header::{Clock, Counted, End, Header, HookFact, Note, Streams, What},
        schema,
        writer::{Packer, Writer},
    },
    source::event::Event,
};
use septwatch_common::{
    Leaf, Level, Status,
    tracker::{self, Call, Finding},
    wire::{Frame, Hook, Kind, SeamcallErr, SeamcallOk, TdLife, VERSION, ViolationEvent},
    zap::{Answer, PFN_UNKNOWN},
};
use zerocopy::{FromZeros as _, IntoBytes as _};

/// Time between two events, in ns.
const STEP_NS: u64 = 1_000;

/// CPUs of the host.
const CPUS: usize = 2;

/// The TD's TDR.
pub const TDR: u64 = 0x300;

/// A recording that is being made. Its fields can be changed before it is written.
pub struct Making {
    pub header: Header,
    /// None: it ends without an end.
    pub end: Option<End>,
    /// What happens next happens then, and there.
    pub now_ns: u64,
    pub cpu: u16,
    /// How long the SEAMCALLs take from here on, in ns; 0: nobody measures.
    pub took_ns: u32,
    /// Whether what the ledger finds is recorded.
    pub keeps_verdicts: bool,
    ledger: Ledger,
    numbered: [[u64; 2]; CPUS],
    lost: [[u64; 2]; CPUS],
    encoder: Encoder,
    frames: Vec<(Vec<u8>, u32)>,
    calls: std::collections::BTreeMap<String, [u64; 3]>,
}

impl Default for Making {
    fn default() -> Self {
        let hook = |name: &str| HookFact {
            name: name.to_owned(),
            bound: Some("by a test".to_owned()),
            missing: None,
        };
        let mut header =
            Header { septwatch: "test".to_owned(), schema: schema::current(), ..Header::default() };
        header.kernel.release = "7.3.0-test".to_owned();
        header.plan = vec![hook("tdh_mem_page_remove"), hook("mm_page_free")];
        header.clock = Clock { monotonic_ns: 1_000_000_000, ..Clock::default() };
        Self {
            header,
            end: Some(End::default()),
            now_ns: 1_000_000_000,
            cpu: 0,
            took_ns: 0,
            keeps_verdicts: true,
            ledger: Ledger::default(),
            numbered: [[0; 2]; CPUS],
            lost: [[0; 2]; CPUS],
            encoder: Encoder::default(),
            frames: Vec::new(),
            calls: std::collections::BTreeMap::new(),
        }
    }
}

impl Making {
    /// A TD is created, and runs.
    pub fn td() -> Self {
        let mut making = Self::default();
        for leaf in [Leaf::MngCreate, Leaf::MngInit, Leaf::MrFinalize] {
            making.call(leaf, PFN_UNKNOWN, 0, 0);
        }
        let mut life = TdLife::new_zeroed();
        (life.tdr, life.id, life.life) = (TDR, 1, 1);
        making.vital(|header| {
            life.header = header;
            Event::Life(life)
        });
        making
    }

    fn header(&mut self, kind: Kind, stream: usize) -> septwatch_common::wire::Header {
        let seq = &mut self.numbered[usize::from(self.cpu)][stream];
        *seq += 1;
        let (time_ns, seq) = (self.now_ns, *seq - 1);
        septwatch_common::wire::Header {
            time_ns,
            seq,
            tgid: 5,
            cpu: self.cpu,
            kind: kind as u8,
            version: VERSION,
        }
    }

    /// An event as it comes, whatever it is; with the header's `what` as the recorder keeps it.
    pub fn event(&mut self, event: &Event) {
        if self.header.what != What::All && !event.is_vital() {
            return;
        }
        match event {
            Event::Call(call) => self.encoder.call(call),
            Event::Frame(frame) => self.encoder.frame(frame),
            Event::Life(life) => self.encoder.vital(Kind::TdLife as u8, life.as_bytes()),
            Event::Vm(vm) => self.encoder.vital(Kind::VmLife as u8, vm.as_bytes()),
            Event::Violation(found) => self.encoder.vital(Kind::Violation as u8, found.as_bytes()),
        }
    }

    fn vital(&mut self, make: impl FnOnce(septwatch_common::wire::Header) -> Event) {
        let header = self.header(Kind::TdLife, 0);
        let mut event = make(header);
        match &mut event {
            Event::Violation(found) => found.header.kind = Kind::Violation as u8,
            Event::Vm(vm) => vm.header.kind = Kind::VmLife as u8,
            _ => {}
        }
        self.event(&event);
    }

    /// A note.
    pub fn note(&mut self, note: &Note) {
        self.encoder.note(&serde_json::to_vec(note).unwrap());
    }

    /// A SEAMCALL on the TD; with what the ledger finds, if it does.
    pub fn call(&mut self, leaf: Leaf, pfn: u64, gfn: u64, status: u64) {
        self.now_ns += STEP_NS;
        let answer = Answer { status: Status(status), ext_err1: 0, ext_err2: 0, now_ns: self.now_ns };
        let call = Call { tdr: TDR, pfn, tdvpr: PFN_UNKNOWN, gfn, level: Level::L4K, hkid: 0, answer };
        self.record(leaf as u8, 0, &call);
        let answers = self.calls.entry(leaf.name().to_owned()).or_default();
        answers[if status == 0 { 0 } else { 1 + usize::from(!call.answer.status.is_busy()) }] += 1;
        let mut finding = Finding::NONE;
        (self.ledger.running.now_ns, self.ledger.running.tgid) = (self.now_ns, 5);
        if tracker::seamcall(&mut self.ledger, leaf, &call, &mut finding) {
            self.found(leaf as u8, &finding);
        }
    }

    /// The record of a SEAMCALL that the ledger knows nothing of; `leaf` and `level` may be anything.
    pub fn record(&mut self, leaf: u8, level: u8, call: &Call) {
        let status = call.answer.status.0;
        let kind = if status == 0 { Kind::SeamcallOk } else { Kind::SeamcallErr };
        let header = self.header(kind, 1);
        let (tdr, pfn, gfn, took_ns) = (call.tdr, call.pfn, call.gfn, self.took_ns);
        let call = SeamcallOk { header, tdr, pfn, gfn, leaf, level, hkid: 0, tid: 6, took_ns, zero: 0 };
        self.event(&Event::Call(SeamcallErr { call, status, ext_err1: 0, ext_err2: 0 }));
    }

    /// A page is mapped.
    pub fn map(&mut self, pfn: u64, gfn: u64) {
        self.call(Leaf::MemPageAug, pfn, gfn, 0);
    }

    /// A page is zapped as KVM does it, after as many answers of BUSY to its REMOVE; then it is freed.
    pub fn zap(&mut self, pfn: u64, gfn: u64, busy: u64) {
        self.call(Leaf::MemRangeBlock, PFN_UNKNOWN, gfn, 0);
        self.call(Leaf::MemTrack, PFN_UNKNOWN, 0, 0);
        for _ in 0..busy {
            self.call(Leaf::MemPageRemove, PFN_UNKNOWN, gfn, BUSY);
        }
        self.call(Leaf::MemPageRemove, pfn, gfn, 0);
        self.call(Leaf::PhymemPageWbinvd, pfn, 0, 0);
        self.free(pfn);
    }

    /// The page allocator receives a frame; with what the ledger finds, if it does.
    pub fn free(&mut self, pfn: u64) {
        self.now_ns += STEP_NS;
        let header = self.header(Kind::Frame, 1);
        let hook = Hook::PageFree as u8;
        self.event(&Event::Frame(Frame { header, pfn, tid: 6, hook, zero: [0; 3] }));
        let mut finding = Finding::NONE;
        if tracker::release(&mut self.ledger, pfn, false, self.now_ns, &mut finding) {
            self.found(hook, &finding);
        }
    }

    fn found(&mut self, hook: u8, finding: &Finding) {
        if !self.keeps_verdicts {
            return;
        }
        let mut event = ViolationEvent::new_zeroed();
        (event.pfn, event.gfn, event.line, event.zap) =
            (finding.pfn, finding.gfn, finding.line.0, finding.zap);
        (event.suspect, event.td, event.violation) = (finding.suspect.0, finding.td, finding.violation as u8);
        (event.hook, event.frames, event.tid) = (hook, finding.frames, 6);
        if let Some(td) = self.ledger.td(finding.td) {
            (event.tdr, event.td_id) = (td.tdr, td.id);
        }
        event.comm[..4].copy_from_slice(b"qemu");
        self.violation(event);
    }

    /// A violation that is recorded, whatever the ledger says.
    pub fn violation(&mut self, mut event: ViolationEvent) {
        self.vital(|header| {
            event.header = header;
            Event::Violation(Box::new(event))
        });
        let kernel = vec!["free_unref_folios+0x454".to_owned(), "kvm_gmem_fallocate+0x1a0".to_owned()];
        self.note(&Note::Places { kernel, user: vec!["qemu+0x1234".to_owned()] });
    }

    /// The ring was full: of this CPU, as many page records are lost.
    pub fn lose(&mut self, count: u64) {
        let cpu = usize::from(self.cpu);
        self.numbered[cpu][1] += count;
        self.lost[cpu][1] += count;
    }

    /// A number is given again.
    pub fn repeat(&mut self) {
        self.numbered[usize::from(self.cpu)][1] -= 1;
    }

    /// A frame of the file ends here.
    pub fn flush(&mut self) {
        self.frames.push(self.encoder.take());
    }

    /// The file's bytes.
    pub fn bytes(mut self) -> Vec<u8> {
        self.flush();
        let streams = |cpu: usize| {
            let [vital, pages] = [0, 1].map(|stream| [self.numbered[cpu][stream], self.lost[cpu][stream]]);
            Streams { vital, pages }
        };
        let counted = Counted {
            time_ns: self.now_ns,
            cpus: (0..CPUS).map(streams).collect(),
            calls: self.calls.clone(),
            ..Counted::default()
        };
        let mut packer = Packer::new().unwrap();
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&mut bytes, &mut packer, &self.header, &State::default()).unwrap();
        for (raw, records) in &self.frames {
            writer.records(&mut packer.pack(raw, *records).unwrap()).unwrap();
        }
        if let Some(end) = self.end {
            writer.end(&mut packer, &End { counted: Some(counted), ..end }).unwrap();
        }
        bytes
    }

    /// Writes the file.
    pub fn write(self, path: &Path) {
        std::fs::write(path, self.bytes()).unwrap();
    }
}

/// TDX_OPERAND_BUSY on RCX.
pub const BUSY: u64 = 0x8000_0200_0000_0001;
