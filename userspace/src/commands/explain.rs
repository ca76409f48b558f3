//! `septwatch explain`: status words and kernel logs in plain words.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args as ClapArgs;
use septwatch_common::Status;
use serde::Serialize;

use crate::explain::{self, Call, Explanation, Feed, words};

/// Explain status words of the TDX module, or the TDX lines of a kernel log on standard input
///
/// Exit codes: 0 everything was explained; 2 a word is no status word or no table has it, or standard input had no
/// line about a SEAMCALL.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// Status words, such as 0xc0000b0800000001 or `TDX_OPERAND_BUSY|RCX`; without any, a kernel log is read from
    /// standard input, as in `dmesg | septwatch explain`
    #[arg(value_name = "WORD")]
    pub words: Vec<String>,

    /// The SEAMCALL leaf that returned the words: its number (29) or name (TDH.MEM.PAGE.REMOVE)
    #[arg(long, value_name = "N|NAME", requires = "words")]
    pub leaf: Option<String>,

    /// Print one JSON object per explanation
    #[arg(long)]
    pub json: bool,
}

/// Longest line that is looked at; the rest of a longer one is taken for lines of its own.
const MAX_LINE: u64 = 64 * 1024;

/// Runs the command on the process's standard streams.
///
/// # Errors
/// When standard input cannot be read or standard output cannot be written; a closed pipe is no error.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let stdin = io::stdin();
    if args.words.is_empty() && stdin.is_terminal() {
        eprintln!(
            "septwatch explain: give a status word, or a kernel log on standard input (dmesg | septwatch explain); {}",
            words::VALID_WORDS
        );
        return Ok(ExitCode::from(2));
    }
    let mut out = io::stdout().lock();
    let code = explain(args, stdin.lock(), &mut out, &mut io::stderr());
    match code {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        code => Ok(ExitCode::from(code.context("septwatch explain: standard input or output")?)),
    }
}

/// The command, on given streams; returns the exit code.
///
/// # Errors
/// When a stream fails.
pub fn explain(
    args: &Args,
    input: impl BufRead,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    if args.words.is_empty() { log(args.json, input, out, err) } else { typed(args, out, err) }
}

fn typed(args: &Args, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let leaf = match args.leaf.as_deref().map(words::parse_leaf).transpose() {
        Ok(leaf) => leaf.map(u64::from),
        Err(error) => {
            writeln!(err, "septwatch explain: --leaf: {error}")?;
            return Ok(2);
        }
    };
    let mut code = 0;
    for word in &args.words {
        match words::parse(word) {
            Ok(status) => {
                let call = Call { leaf, status, ..Call::default() };
                write_one(args.json, None, &Explanation::Status(Box::new(explain::status(&call))), out)?;
                if status.name().is_none() {
                    out.flush()?;
                    writeln!(err, "septwatch explain: {}", unnamed(status))?;
                    code = 2;
                }
            }
            Err(error) => {
                out.flush()?;
                writeln!(err, "septwatch explain: {error}")?;
                code = 2;
            }
        }
    }
    Ok(code)
}

fn unnamed(status: Status) -> String {
    format!(
        "0x{:016x} is in no table, neither the TDX module's nor Linux'; a word that is reads like 0xc0000b0800000001 \
         (TDX_TLB_TRACKING_NOT_DONE, operand RCX)",
        status.0
    )
}

fn log(json: bool, mut input: impl BufRead, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let mut feed = Feed::default();
    let mut lines = 0_u64;
    let mut explained = 0_u64;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if (&mut input).take(MAX_LINE).read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        lines += 1;
        let line = String::from_utf8_lossy(&bytes);
        for (line, explanation) in feed.line(line.trim_end_matches(['\r', '\n'])) {
            write_one(json, Some(&line), &explanation, out)?;
            explained += 1;
        }
        // A live log (dmesg -w) is answered line by line.
        out.flush()?;
    }
    if let Some((line, explanation)) = feed.finish() {
        write_one(json, Some(&line), &explanation, out)?;
        explained += 1;
    }
    out.flush()?;
    if explained == 0 {
        writeln!(
            err,
            "septwatch explain: {lines} lines of standard input, none about a SEAMCALL that failed or a TDX warning \
             (such as \"SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0x…\"): nothing to explain"
        )?;
        return Ok(2);
    }
    Ok(0)
}

#[derive(Serialize)]
struct Record<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<&'a str>,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

fn write_one(
    json: bool,
    line: Option<&str>,
    explanation: &Explanation,
    out: &mut impl Write,
) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, &Record { line, explanation })?;
        return writeln!(out);
    }
    if let Some(line) = line {
        writeln!(out, "> {line}")?;
    }
    writeln!(out, "{explanation}")
}
