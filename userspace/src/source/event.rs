//! Events, as every source gives them and every consumer takes them.

use septwatch_common::wire::{
    Frame, Header, Kind, SeamcallErr, SeamcallOk, TdLife, VERSION, ViolationEvent, VmLife,
};
use thiserror::Error;
use zerocopy::FromBytes as _;

/// Something that happened, as the programs in the kernel saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A TD reached a stage of its life.
    Life(TdLife),
    /// A SEAMCALL returned; one that succeeded has status and details 0.
    Call(SeamcallErr),
    /// A frame whose line was open was released or handed out.
    Frame(Frame),
    /// A VM reached a stage that SEAMCALLs do not tell.
    Vm(VmLife),
    /// A violation.
    Violation(Box<ViolationEvent>),
}

/// A record that is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// Shorter than any event.
    #[error("record of {0} bytes: no event is that short")]
    Short(usize),
    /// Made by other programs.
    #[error("record of version {0}: this septwatch reads version {VERSION}")]
    Version(u8),
    /// Kind and length do not fit.
    #[error("record of kind {kind} with {length} bytes: no such event")]
    Kind {
        /// The kind's number.
        kind: u8,
        /// Bytes.
        length: usize,
    },
}

impl Event {
    /// Nothing that happened: room for an event.
    pub const NONE: Self = Self::Frame(Frame {
        header: Header { time_ns: 0, seq: 0, tgid: 0, cpu: 0, kind: Kind::Frame as u8, version: VERSION },
        pfn: 0,
        tid: 0,
        hook: 0,
        zero: [0; 3],
    });

    /// Reads a record.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let (header, _) = Header::read_from_prefix(bytes).map_err(|_| WireError::Short(bytes.len()))?;
        if header.version != VERSION {
            return Err(WireError::Version(header.version));
        }
        let unknown = WireError::Kind { kind: header.kind, length: bytes.len() };
        let event = match header.kind {
            kind if kind == Kind::TdLife as u8 => TdLife::read_from_bytes(bytes).map(Self::Life).ok(),
            kind if kind == Kind::SeamcallOk as u8 => SeamcallOk::read_from_bytes(bytes)
                .map(|call| Self::Call(SeamcallErr { call, status: 0, ext_err1: 0, ext_err2: 0 }))
                .ok(),
            kind if kind == Kind::SeamcallErr as u8 => {
                SeamcallErr::read_from_bytes(bytes).map(Self::Call).ok()
            }
            kind if kind == Kind::Frame as u8 => Frame::read_from_bytes(bytes).map(Self::Frame).ok(),
            kind if kind == Kind::VmLife as u8 => VmLife::read_from_bytes(bytes).map(Self::Vm).ok(),
            kind if kind == Kind::Violation as u8 => {
                ViolationEvent::read_from_bytes(bytes).map(|event| Self::Violation(Box::new(event))).ok()
            }
            _ => None,
        };
        event.ok_or(unknown)
    }

    /// How it begins.
    pub fn header(&self) -> &Header {
        match self {
            Self::Life(life) => &life.header,
            Self::Call(call) => &call.call.header,
            Self::Frame(frame) => &frame.header,
            Self::Vm(vm) => &vm.header,
            Self::Violation(violation) => &violation.header,
        }
    }

    /// Whether it is of the stream that always flows; the others flow when somebody records.
    pub fn is_vital(&self) -> bool {
        !matches!(self, Self::Call(_) | Self::Frame(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes as _;

    fn frame() -> Frame {
        let header =
            Header { time_ns: 1, seq: 2, tgid: 3, cpu: 4, kind: Kind::Frame as u8, version: VERSION };
        Frame { header, pfn: 5, tid: 6, hook: 0xf0, zero: [0; 3] }
    }

    #[test]
    fn a_record_is_read_back() {
        assert_eq!(Event::parse(frame().as_bytes()), Ok(Event::Frame(frame())));
    }

    #[test]
    fn what_is_not_an_event_is_named() {
        let frame = frame();
        let bytes = frame.as_bytes();
        assert_eq!(Event::parse(&bytes[..7]), Err(WireError::Short(7)));
        assert_eq!(Event::parse(&bytes[..32]), Err(WireError::Kind { kind: 5, length: 32 }));
        let mut newer = bytes.to_vec();
        newer[23] = VERSION + 1;
        assert_eq!(Event::parse(&newer), Err(WireError::Version(VERSION + 1)));
        let mut other = bytes.to_vec();
        other[22] = 77;
        assert_eq!(Event::parse(&other), Err(WireError::Kind { kind: 77, length: bytes.len() }));
    }
}
