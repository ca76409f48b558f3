//! The TD that a policy is about: what tells it from others, beside its number.

use std::{borrow::Cow, fs::File, io::Read as _, path::Path};

use super::react::{host::cgroup, vmm::Stat};

/// A TD, as a policy's rules and reactions see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Its number; none where the verdict names no TD.
    pub td: Option<u32>,
    /// Process that created it: its VMM.
    pub tgid: Option<u32>,
    /// When it began, in ns of CLOCK_MONOTONIC: a process that is younger is not its VMM, but has its number.
    pub begun_ns: u64,
    /// Its name, where the VMM's command line tells it.
    pub name: Option<String>,
    /// Its UUID, from there too.
    pub uuid: Option<String>,
    /// cgroup v2 path of the VMM, as in /proc/PID/cgroup.
    pub cgroup: Option<String>,
}

/// Longest file of /proc that is read, in bytes.
const LONGEST: u64 = 1 << 20;

impl Subject {
    /// What is known of a TD in a recording: no command line, and of its cgroup only a number.
    pub fn recorded(td: Option<u32>, tgid: Option<u32>, begun_ns: u64) -> Self {
        Self { td, tgid, begun_ns, ..Self::default() }
    }

    /// A TD with what its process says of it now. A process that is gone, or younger than the TD, says nothing, and is
    /// not its VMM.
    pub fn of_process(td: u32, tgid: u32, begun_ns: u64) -> Self {
        let proc = Path::new("/proc").join(tgid.to_string());
        let read = |name: &str| {
            let mut bytes = Vec::new();
            File::open(proc.join(name)).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        };
        let stat = read("stat").and_then(|stat| Stat::parse(&String::from_utf8_lossy(&stat)));
        let known = Self { td: Some(td), begun_ns, ..Self::default() };
        if stat.is_none_or(|stat| stat.is_younger_than(begun_ns).is_some()) {
            return known;
        }
        let command = read("cmdline").unwrap_or_default();
        let arguments: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let cgroup =
            read("cgroup").and_then(|text| cgroup(&String::from_utf8_lossy(&text)).map(str::to_owned));
        let name = name(&arguments).or_else(|| cgroup.as_deref().and_then(machine));
        Self { tgid: Some(tgid), name, uuid: uuid(&arguments), cgroup, ..known }
    }
}

/// What follows one of these arguments, or `=` in it.
fn after<'a>(arguments: &'a [Cow<'_, str>], names: &[&str]) -> Option<&'a str> {
    let mut left = arguments.iter();
    while let Some(argument) = left.next() {
        if names.contains(&argument.as_ref()) {
            return left.next().map(AsRef::as_ref);
        }
        let value =
            argument.split_once('=').filter(|(name, _)| name.starts_with("--") && names.contains(name));
        if let Some((_, value)) = value {
            return Some(value);
        }
    }
    None
}

/// Of options such as `guest=web,,1,debug-threads=on`, where two commas are one of a value: the value of this key.
fn option(options: &str, key: &str) -> Option<String> {
    let options = options.replace(",,", "\0");
    let value = options.split(',').find_map(|option| option.strip_prefix(key)?.strip_prefix('='));
    value.map(|value| value.replace('\0', ","))
}

/// QEMU's `-name guest=X,...` or `-name X,...`; crosvm's `--name X`.
fn name(arguments: &[Cow<'_, str>]) -> Option<String> {
    let value = after(arguments, &["-name", "--name"])?;
    let first = || {
        let value = value.replace(",,", "\0");
        let first = value.split(',').next().filter(|first| !first.contains('='));
        first.map(|first| first.replace('\0', ","))
    };
    option(value, "guest").or_else(first).filter(|name| !name.is_empty())
}

/// QEMU's `-uuid X`; cloud-hypervisor's `--platform uuid=X`.
fn uuid(arguments: &[Cow<'_, str>]) -> Option<String> {
    let qemu = after(arguments, &["-uuid", "--uuid"]).map(str::to_owned);
    let platform = || after(arguments, &["--platform"]).and_then(|options| option(options, "uuid"));
    qemu.or_else(platform).filter(|uuid| !uuid.is_empty())
}

/// The name that libvirt gave to a machine's scope: `machine-qemu\x2d1\x2dNAME.scope`.
fn machine(cgroup: &str) -> Option<String> {
    let scope = cgroup.split('/').find_map(|part| part.strip_prefix("machine-")?.strip_suffix(".scope"))?;
    let plain = unescaped(scope);
    let mut parts = plain.splitn(3, '-').skip(1);
    let is_number = parts.next()?.bytes().all(|byte| byte.is_ascii_digit());
    parts.next().filter(|name| is_number && !name.is_empty()).map(str::to_owned)
}

/// systemd's `\x2d` for a byte.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend(before.bytes());
        match after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.extend(b"\\x");
                rest = after;
            }
        }
    }
    bytes.extend(rest.bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<Cow<'_, str>> {
        line.split(' ').map(Cow::from).collect()
    }

    #[test]
    fn names_are_in_command_lines() {
        for (line, told, id) in [
            ("qemu -name guest=web-1,debug-threads=on -uuid 1b4e -m 1", Some("web-1"), Some("1b4e")),
            ("qemu -name process=x,guest=a,,b", Some("a,b"), None),
            ("qemu -name web,process=vm", Some("web"), None),
            ("qemu -name debug-threads=on", None, None),
            ("qemu -m 1 -name", None, None),
            ("qemu -name sandbox-7f -uuid", Some("sandbox-7f"), None),
            ("crosvm run --name=guest7 kernel", Some("guest7"), None),
            ("cloud-hypervisor --platform tdx=on,uuid=1B4E --memory size=1G", None, Some("1B4E")),
            ("", None, None),
        ] {
            let line = arguments(line);
            assert_eq!((name(&line).as_deref(), uuid(&line).as_deref()), (told, id), "{line:?}");
        }
    }

    #[test]
    fn libvirt_names_scopes() {
        for (path, name) in [
            (r"/machine.slice/machine-qemu\x2d1\x2dweb\x2done.scope/libvirt/emulator", Some("web-one")),
            (r"/machine.slice/machine-ch\x2d12\x2ddb.scope", Some("db")),
            (r"/machine.slice/machine-qemu\x2dweb.scope", None),
            (r"/machine.slice/machine-q\x2d1\x2da\xzz.scope", Some(r"a\xzz")),
            ("/user.slice", None),
        ] {
            assert_eq!(machine(path).as_deref(), name, "{path}");
        }
        assert_eq!(cgroup("12:cpu:/x\n0::/machine.slice\n"), Some("/machine.slice"));
        assert_eq!(cgroup("12:cpu:/x\n"), None);
    }

    #[test]
    fn a_younger_process_is_another() {
        let pid = std::process::id();
        let own = Subject::of_process(3, pid, u64::MAX);
        assert_eq!((own.td, own.tgid), (Some(3), Some(pid)));
        let younger = Subject::of_process(3, pid, 1);
        assert_eq!(younger, Subject::recorded(Some(3), None, 1));
        assert_eq!(Subject::of_process(3, u32::MAX, u64::MAX).tgid, None);
        assert!(Stat::parse("7 (a) b) S 1").is_none());
    }
}
