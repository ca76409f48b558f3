//! A container as a kubelet would have it made, from a manifest, by a real runtime: with the manifest's capabilities, mounts
//! and seccomp profile, and what every container has.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    package::Root,
    servers::{over_usr, until},
};

/// What no container sees, and what none may write (containerd, `oci/spec.go`).
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A container at work, in a pod of its own. Dropping it ends it.
pub struct Container {
    folder: TempDir,
    name: String,
    child: Option<Child>,
}

impl Container {
    /// Begins the first container of a pod, with a volume from `volumes` (name and folder) for each that is mounted, or from
    /// the host, and with further arguments. What is installed is over this machine's own /usr: the image.
    pub fn begin(root: &Root, pod: &Value, volumes: &[(&str, PathBuf)], further: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rootfs = folder.path().join("rootfs");
        for part in ["usr", "proc", "sys", "dev", "run", "tmp"] {
            fs::create_dir_all(rootfs.join(part)).unwrap();
        }
        for part in ["bin", "lib", "lib64", "sbin"] {
            std::os::unix::fs::symlink(Path::new("usr").join(part), rootfs.join(part)).unwrap();
        }
        let mut copy = Command::new("cp");
        assert!(copy.arg("-a").args([root.at("etc"), rootfs.clone()]).status().unwrap().success());
        let config = spec(pod, volumes, further);
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let name = format!("septwatch-test-{}", std::process::id());
        let mut run = crun(folder.path());
        run.args(["run", "--bundle"]).arg(folder.path()).arg(&name);
        let script = "mount -t overlay -o lowerdir=\"$0\":/usr overlay \"$1\" && shift && exec \"$@\"";
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", script]).arg(root.at("usr")).arg(rootfs.join("usr"));
        unshare.arg(run.get_program()).args(run.get_args());
        let log = |name: &str| fs::File::create(folder.path().join(name)).unwrap();
        unshare.stdin(Stdio::null()).stdout(log("stdout")).stderr(log("stderr"));
        let child = Some(unshare.spawn().unwrap());
        Self { folder, name, child }
    }

    /// What it wrote until now: standard output or error.
    pub fn wrote(&self, stream: &str) -> String {
        fs::read_to_string(self.folder.path().join(stream)).unwrap()
    }

    /// Runs a command in it, as a probe does.
    pub fn exec(&self, command: &[String]) -> Output {
        crun(self.folder.path())
            .arg("exec")
            .arg(&self.name)
            .args(command)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Its exit code, once it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.as_mut()?.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
    }

    /// Tells it to end, as a kubelet does, which it must do in good order.
    pub fn end(mut self) {
        assert!(crun(self.folder.path()).args(["kill", &self.name, "TERM"]).status().unwrap().success());
        let code = until("it ends", || self.ended());
        assert_eq!(code, 0, "{}", self.wrote("stderr"));
        self.child = None;
    }
}

/// The runtime, with what it knows of its containers in this folder. It refuses a host with cgroups of both versions, though
/// it is to leave them alone: it sees the second only.
fn crun(folder: &Path) -> Command {
    let crun = over_usr("crun");
    let script = "mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(crun.get_program()).args(crun.get_args());
    command.arg("--cgroup-manager=disabled").arg(format!("--root={}", folder.join("state").display()));
    command
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.child.is_none() {
            return;
        }
        // It may have ended.
        let _ = crun(self.folder.path()).args(["delete", "--force", &self.name]).output();
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap()).collect()
}

/// The runtime's configuration (OCI runtime specification) of a pod's first container.
fn spec(pod: &Value, volumes: &[(&str, PathBuf)], further: &[&str]) -> Value {
    let container = &pod["containers"][0];
    let context = &container["securityContext"];
    assert_eq!(texts(&context["capabilities"]["drop"]), ["ALL"]);
    let given = texts(&context["capabilities"]["add"]).into_iter();
    let given: Vec<_> = given.map(|name| format!("CAP_{name}")).collect();
    // The demo locks its pages; the agent by itself has none to lock.
    let names: Vec<_> = given.iter().map(String::as_str).chain(["CAP_IPC_LOCK"]).collect();
    let arguments: Vec<_> = texts(&container["command"]).into_iter().chain(further.iter().copied()).collect();
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}),
    ];
    for mount in container["volumeMounts"].as_array().unwrap() {
        let name = mount["name"].as_str().unwrap();
        let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == name).unwrap();
        let source = match volume["hostPath"]["path"].as_str() {
            Some(path) => PathBuf::from(path),
            None => volumes.iter().find(|(known, _)| *known == name).unwrap().1.clone(),
        };
        let source = mount["subPath"].as_str().map_or(source.clone(), |path| source.join(path));
        // A kubelet follows the links in a volume before it mounts a part of it.
        let source = source.canonicalize().unwrap();
        let access = if mount["readOnly"] == true { "ro" } else { "rw" };
        mounts.push(json!({
            "destination": mount["mountPath"], "type": "bind", "source": source, "options": ["rbind", "rprivate", access],
        }));
    }
    let mut namespaces = vec!["mount", "ipc", "uts"];
    namespaces.extend((pod["hostPID"] != true).then_some("pid"));
    namespaces.extend((pod["hostNetwork"] != true).then_some("network"));
    let namespaces: Vec<_> = namespaces.iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": context["runAsUser"], "gid": context["runAsGroup"]},
            "args": arguments,
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            // A capability that is neither inheritable nor ambient is had by root alone.
            "capabilities": {"bounding": names, "effective": names, "permitted": names},
            "noNewPrivileges": context["allowPrivilegeEscalation"] == false,
        },
        "root": {"path": "rootfs", "readonly": context["readOnlyRootFilesystem"]},
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": match pod["securityContext"]["seccompProfile"]["type"].as_str() {
                Some("RuntimeDefault") => seccomp(&given),
                other => panic!("{other:?}"),
            },
        },
    })
}

/// The profile that runtimes ship, as it is with these capabilities.
fn seccomp(capabilities: &[String]) -> Value {
    let usr = env::var_os("SEPTWATCH_CHECKERS").unwrap_or_else(|| "/usr".into());
    let text = fs::read_to_string(Path::new(&usr).join("share/containers/seccomp.json")).unwrap();
    let profile: Value = serde_json::from_str(&text).unwrap();
    let has = |name: &&str| capabilities.iter().any(|capability| capability == name);
    let applies = |rule: &&Value| {
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        let architectures = texts(&includes["arches"]);
        (architectures.is_empty() || architectures.contains(&"amd64"))
            && !texts(&excludes["arches"]).contains(&"amd64")
            && texts(&includes["caps"]).iter().all(has)
            && !texts(&excludes["caps"]).iter().any(has)
    };
    let rules = profile["syscalls"].as_array().unwrap().iter().filter(applies);
    let rules = rules.map(|rule| {
        let mut kept = json!({"names": rule["names"], "action": rule["action"], "args": rule["args"]});
        if rule["errnoRet"].is_u64() {
            kept["errnoRet"] = rule["errnoRet"].clone();
        }
        kept
    });
    json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": rules.collect::<Vec<_>>(),
    })
}
