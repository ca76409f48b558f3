//! Names of a recording's files, and making them.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use super::frame::MAGIC;

/// `trace.0007.swt` of `trace.swt`.
pub fn numbered(path: &Path, number: u32) -> PathBuf {
    let (stem, extension) = split(path);
    path.with_file_name(format!("{stem}.{number:04}{extension}"))
}

/// Numbered files that are there already, lowest number first.
pub fn earlier(path: &Path) -> Vec<(u32, PathBuf)> {
    let (stem, extension) = split(path);
    let number = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        let number = name.strip_prefix(&stem)?.strip_prefix('.')?.strip_suffix(&extension)?;
        (number.len() >= 4 && number.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| number.parse().ok())?
    };
    let entries = fs::read_dir(folder(path)).into_iter().flatten().flatten();
    let mut earlier: Vec<_> =
        entries.filter_map(|entry| number(&entry.path()).map(|number| (number, entry.path()))).collect();
    earlier.sort();
    earlier
}

/// Makes a file, or empties one that is a recording: any other was not meant.
///
/// # Errors
/// It cannot be made, or is no recording.
pub fn make(path: &Path) -> io::Result<File> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
        Ok(file) => {
            // The violation that it is made for may be the last thing that this host does: its name is to last, too.
            File::open(folder(path))?.sync_all()?;
            return Ok(file);
        }
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if file.metadata()?.is_file() {
        let mut begin = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(&file, MAGIC.len() as u64), &mut begin)?;
        if !begin.is_empty() && begin != MAGIC {
            let why = "the file is there, and is no recording: it is not replaced";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        file.set_len(0)?;
        io::Seek::rewind(&mut &file)?;
    }
    Ok(file)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file's name before and from its last dot.
fn split(path: &Path) -> (String, String) {
    let text = |part: Option<&OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let extension = text(path.extension()).map_or(String::new(), |extension| format!(".{extension}"));
    (text(path.file_stem()).unwrap_or_default(), extension)
}
