//! Lab kernels: a source with the software TDX module in it, the lab's configuration, compiled.
//!
//! A tree in the cache belongs to one source and compiler and is compiled in again and again, so that a change of
//! the module or of the configuration costs only what it touches. What a build leaves is copied to a folder of its
//! own, keyed by source, configuration, module and compiler.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::source::Source;
use super::{modules, place};
use crate::setup::packages;
use crate::step::{Outcome, note, seconds, step};
use crate::{lock, run};

/// Where the module goes in the kernel's source, and the Makefile that is told so.
const TDX: &str = "arch/x86/virt/vmx/tdx";
const MODULE_FOLDER: &str = "softtdx";

/// Without these there is no lab; kconfig drops silently what a release does not have.
const NEEDED: [&str; 8] = [
    "CONFIG_INTEL_TDX_HOST=y",
    "CONFIG_KVM_INTEL_TDX=y",
    "CONFIG_KVM_INTEL=m",
    "CONFIG_ATA_PIIX=y",
    "CONFIG_BPF_LSM=y",
    "CONFIG_DEBUG_INFO_BTF_MODULES=y",
    "CONFIG_HWPOISON_INJECT=y",
    "CONFIG_SERIAL_8250_CONSOLE=y",
];

/// How often a long build says how far it is.
const PROGRESS: Duration = Duration::from_secs(30);

/// Lines of a failed build that go into the error.
const TAIL: usize = 20;

/// A built kernel.
pub struct Image {
    /// The release or the tree's name.
    pub name: String,
    /// `bzImage`, `config`, `System.map` and the modules are here.
    pub folder: PathBuf,
    pub source: Source,
    /// Differs whenever a file of the source differs.
    pub state: String,
    /// Where the source is, or was and can be put again.
    pub tree: PathBuf,
}

/// The kernel of this source; built if the cache does not have it.
///
/// # Errors
/// A missing program that cannot be installed, a source without TDX, a compile error (with the end of its log).
pub fn ensure(source: &Source) -> Result<Image> {
    let held = lock::alone(&lock_name(&source.name))?;
    let compiler = compiler()?;
    let config = place::tests_lab().join("kernel.config");
    let config_text =
        fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
    let module = module_files()?;
    let tree = place::folder("trees")?.join(format!(
        "{}-{}",
        source.name,
        place::key(&[&source.identity, &compiler])
    ));
    // A release's identity tells all of its contents: its image can be found without its source.
    let key = |state: &str| {
        let mut parts = vec![state, compiler.as_str(), config_text.as_str()];
        parts.extend(modules::ROOTS);
        parts.extend(module.iter().flat_map(|(name, text)| [name.as_str(), text.as_str()]));
        place::key(&parts)
    };
    let at =
        |key: &str| Ok::<_, anyhow::Error>(place::folder("kernels")?.join(format!("{}-{key}", source.name)));
    let image = |folder: PathBuf, state: &str| Image {
        name: source.name.clone(),
        folder,
        state: state.to_owned(),
        source: source.clone(),
        tree: tree.clone(),
    };
    let found = at(&key(&source.identity))?;
    if found.join("bzImage").is_file() {
        return Ok(image(found, &source.identity));
    }

    packages::ensure("kernel tools", &TOOLS)?;
    let state = source.put_into(&tree)?;
    let folder = at(&key(&state))?;
    if !folder.join("bzImage").is_file() {
        step(&format!("kernel {}", source.name), || {
            add_module(&tree, &module)?;
            configure(&tree, &config)?;
            let log = tree.join("lab-build.log");
            compile(&tree, &source.name, &log)?;
            collect(&tree, &folder)?;
            Ok((Outcome::Done(format!("built in {}", folder.display())), ()))
        })?;
    }
    drop(held);
    Ok(image(folder, &state))
}

/// Whoever works in the tree of this kernel holds the lock of this name.
pub fn lock_name(name: &str) -> String {
    format!("kernel-{name}")
}

/// What compiling a kernel needs: a program or a header, and the Debian package that has it.
const TOOLS: [(&str, &str); 11] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
    ("xz", "xz-utils"),
    ("cpio", "cpio"),
    ("pahole", "dwarves"),
    ("/usr/include/gelf.h", "libelf-dev"),
    ("/usr/include/openssl/ssl.h", "libssl-dev"),
];

/// The first line of `gcc --version`; empty when there is no compiler yet.
fn compiler() -> Result<String> {
    let output = Command::new("gcc").arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    if text.is_empty() {
        packages::ensure("kernel tools", &TOOLS)?;
        return Ok(run::quiet(Command::new("gcc").arg("--version"))?
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned());
    }
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Name and text of every file of the software module.
fn module_files() -> Result<Vec<(String, String)>> {
    let folder = place::tests_lab().join(MODULE_FOLDER);
    let mut files = Vec::new();
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "Makefile" || name.ends_with(".c") || name.ends_with(".h") {
            let text = fs::read_to_string(entry.path());
            files.push((name, text.with_context(|| format!("cannot read {}", entry.path().display()))?));
        }
    }
    files.sort();
    Ok(files)
}

/// Puts the module into the tree. A file that is the same keeps its time.
fn add_module(tree: &Path, module: &[(String, String)]) -> Result<()> {
    let makefile = tree.join(TDX).join("Makefile");
    let line = format!("obj-y += {MODULE_FOLDER}/");
    let text = fs::read_to_string(&makefile)
        .with_context(|| format!("{} is missing: no TDX host support in this source", makefile.display()))?;
    if !text.lines().any(|there| there == line) {
        write(&makefile, &format!("{text}{line}\n"))?;
    }
    let folder = tree.join(TDX).join(MODULE_FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for (name, text) in module {
        let path = folder.join(name);
        if fs::read_to_string(&path).is_ok_and(|there| there == *text) {
            continue;
        }
        write(&path, text)?;
    }
    for entry in fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let source = name.ends_with(".c") || name.ends_with(".h");
        if source && module.iter().all(|(known, _)| *known != name) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn configure(tree: &Path, fragment: &Path) -> Result<()> {
    let mut make = make(tree);
    make.arg(format!("KCONFIG_ALLCONFIG={}", fragment.display())).arg("allnoconfig");
    run::quiet(&mut make)?;
    let config = tree.join(".config");
    let text = fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
    let missing: Vec<_> =
        NEEDED.iter().filter(|option| text.lines().all(|line| line != **option)).copied().collect();
    ensure!(
        missing.is_empty(),
        "this source cannot be a lab kernel: it does not take {}",
        missing.join(", ")
    );
    Ok(())
}

/// `make` in a folder of the kernel's source, in the time that nothing else wants.
pub fn make(tree: &Path) -> Command {
    let mut make = run::idle("make");
    make.arg("-C").arg(tree).env("LC_ALL", "C").env_remove("MAKEFLAGS");
    make
}

/// Compiles, with a line now and then, and the whole output in the log.
fn compile(tree: &Path, name: &str, log: &Path) -> Result<()> {
    note(name, format_args!("compiling; log in {}", log.display()));
    let jobs = std::thread::available_parallelism().map_or(2, |cpus| cpus.get() + 1);
    let mut make = make(tree);
    make.arg(format!("-j{jobs}")).args(["bzImage", "modules"]).stdin(Stdio::null());
    let mut out = fs::File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let errors = out.try_clone().context("cannot share the log")?;
    let mut child = make.stdout(Stdio::piped()).stderr(errors).spawn().context("cannot run make")?;
    let output = child.stdout.take().context("make without output")?;
    let start = Instant::now();
    let mut told = start;
    for (lines, line) in BufReader::new(output).lines().enumerate() {
        let line = line.context("cannot read make's output")?;
        writeln!(out, "{line}").with_context(|| format!("cannot write {}", log.display()))?;
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            note(name, format_args!("{} files so far, {}: {}", lines, seconds(start.elapsed()), line.trim()));
        }
    }
    let status = child.wait().context("cannot wait for make")?;
    if !status.success() {
        let text = fs::read_to_string(log).unwrap_or_default();
        let errors: Vec<&str> = text.lines().filter(|line| line.contains("rror")).collect();
        bail!(
            "make: {status}; whole log in {}\n{}",
            log.display(),
            errors[errors.len().saturating_sub(TAIL)..].join("\n")
        );
    }
    Ok(())
}

/// Copies what a machine needs out of the tree; `bzImage` last, as the sign that all is there.
fn collect(tree: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    modules::collect(tree, folder)?;
    for (from, to) in
        [("System.map", "System.map"), (".config", "config"), ("arch/x86/boot/bzImage", "bzImage")]
    {
        let from = tree.join(from);
        fs::copy(&from, folder.join(to)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}
