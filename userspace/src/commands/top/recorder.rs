//! The recorder key: what `septwatch record` does, begun and ended while the screen is on.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    commands::recording,
    export::rows::rfc3339,
    model::verdict::Verdict,
    recording::{
        State,
        files::{Files, Limits},
        header::{Clock, HookFact, LedgerFacts, Origin, What, Why},
        recorder::Recorder,
    },
    source::{event::Event, open::Options, session::Session},
    view::stack::Places,
};

/// Records, or could.
pub struct Recording {
    /// What the header of a file says.
    pub origin: Origin,
    /// See `origin`.
    pub plan: Vec<HookFact>,
    /// See `origin`.
    pub options: Options,
    /// See `origin`.
    pub ledger: LedgerFacts,
    /// SEAMCALLs arrive, recorded or not.
    pub pages: bool,
    /// What records, and where to.
    pub running: Option<(Recorder, PathBuf)>,
}

impl Recording {
    /// The file that is being written.
    pub fn file(&self) -> Option<String> {
        self.running.as_ref().map(|(_, path)| path.display().to_string())
    }

    /// Begins, or ends; and says so.
    pub fn toggle(&mut self, session: &mut Session) -> String {
        if self.running.is_some() {
            return match self.end(session) {
                Ok(told) => told.unwrap_or_default(),
                Err(error) => format!("the recording: {error:#}"),
            };
        }
        match self.begin(session) {
            Ok(path) => format!("recording to {}", path.display()),
            Err(error) => format!("nothing is recorded: {error:#}"),
        }
    }

    fn begin(&mut self, session: &mut Session) -> Result<PathBuf> {
        // 2026-11-28T22:15:01.123456789Z, without what a shell or another system would stumble over.
        let time = rfc3339(Clock::now().realtime_ns);
        let time: String = time.chars().take(19).filter(|c| !matches!(c, '-' | ':')).collect();
        let path = std::path::absolute(format!("septwatch-{time}.swt"))?;
        session.kernel().record_pages(true)?;
        let tds = session.kernel().tds()?;
        let mut ledger = self.ledger;
        // Lines of before are not in it.
        ledger.taken_over |= tds.iter().any(|td| td.lent() != 0);
        let (origin, plan) = (self.origin.clone(), self.plan.clone());
        let mut header = recording::header(What::All, origin, session.kernel(), plan, &self.options, ledger);
        header.before = session.model().accounting.so_far().iter().map(Into::into).collect();
        let files = Files::create(&path, header, State::of_tds(tds), Limits::default())?;
        self.running = Some((Recorder::new(What::All, files)?, path.clone()));
        Ok(path)
    }

    /// Takes an event in.
    pub fn event(&mut self, event: &Event, found: Option<(&Verdict, &Places)>) {
        if let Some((recorder, _)) = &mut self.running {
            recording::event(recorder, event, found);
        }
    }

    /// All that was there has been taken in.
    ///
    /// # Errors
    /// The kernel side cannot be read.
    pub fn pumped(&mut self, session: &mut Session) -> Result<()> {
        if let Some((recorder, _)) = &mut self.running {
            recording::pumped(recorder, session)?;
        }
        Ok(())
    }

    /// Ends, and says what came of it; none: nothing was recorded.
    ///
    /// # Errors
    /// The kernel side cannot be read.
    pub fn end(&mut self, session: &mut Session) -> Result<Option<String>> {
        let Some((recorder, _)) = self.running.take() else { return Ok(None) };
        let written = recording::finish(recorder, session, Why::Stopped)?;
        session.kernel().record_pages(self.pages)?;
        Ok(Some(recording::told(&written)))
    }
}
