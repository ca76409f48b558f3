//! `quarantine`: the frame is taken offline, as memory that fails is.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
};

use super::{ReactError, file, host::Host};

/// KPF_HWPOISON, include/uapi/linux/kernel-page-flags.h.
const HWPOISON: u64 = 1 << 19;

/// Takes a frame offline.
///
/// # Errors
/// It is not known, or is not marked afterwards: with what the kernel answered.
pub fn quarantine(host: &Host, pfn: Option<u64>) -> Result<String, ReactError> {
    let pfn = pfn.ok_or_else(|| ReactError::Refused("the frame is not known".to_owned()))?;
    let switch = host.sys.join("devices/system/memory/hard_offline_page");
    let answer = match fs::OpenOptions::new().write(true).open(&switch) {
        Ok(opened) => opened.write_at(format!("{:#x}", pfn << 12).as_bytes(), 0),
        Err(error) => return Err(file(&switch)(error)),
    };
    let answer = match answer {
        Ok(_) => "the kernel answered that it is done".to_owned(),
        Err(error) => format!("the kernel answered {error}"),
    };
    // The mark counts, not the answer: memory failure marks a frame first, and then may find it busy.
    let flags = host.proc.join("kpageflags");
    let mut entry = [0; size_of::<u64>()];
    let read =
        File::open(&flags).and_then(|opened| opened.read_exact_at(&mut entry, pfn * size_of::<u64>() as u64));
    if let Err(error) = read {
        return Err(ReactError::NotSeen(format!(
            "{answer}; whether frame {pfn:#x} is marked is not seen: {}: {error}",
            flags.display()
        )));
    }
    if u64::from_ne_bytes(entry) & HWPOISON == 0 {
        return Err(ReactError::NotSeen(format!("frame {pfn:#x} is not marked HWPoison; {answer}")));
    }
    Ok(format!("frame {pfn:#x} is marked HWPoison; {answer}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::{super::vmm::tests::tree, *};

    #[test]
    fn the_mark_counts() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::under(root.path());
        assert_eq!(quarantine(&host, None).unwrap_err().to_string(), "the frame is not known");
        assert!(matches!(quarantine(&host, Some(2)), Err(ReactError::File { .. })), "no such switch");
        let switch = "sys/devices/system/memory/hard_offline_page";
        tree(root.path(), &[(switch, "")]);
        let unseen = quarantine(&host, Some(2)).unwrap_err().to_string();
        assert!(unseen.contains("whether frame 0x2 is marked is not seen"), "{unseen}");
        let mut flags = [0_u64; 4];
        flags[1] = HWPOISON;
        let bytes: Vec<_> = flags.iter().flat_map(|flags| flags.to_ne_bytes()).collect();
        fs::create_dir(root.path().join("proc")).unwrap();
        fs::write(root.path().join("proc/kpageflags"), &bytes).unwrap();
        let not = quarantine(&host, Some(2)).unwrap_err().to_string();
        assert!(not.starts_with("frame 0x2 is not marked HWPoison"), "{not}");
        assert!(quarantine(&host, Some(1)).unwrap().starts_with("frame 0x1 is marked HWPoison"));
        assert_eq!(fs::read_to_string(root.path().join(switch)).unwrap(), "0x1000");
        assert!(matches!(quarantine(&host, Some(9)), Err(ReactError::NotSeen(_))), "beyond all memory");
    }
}
