//! The Kubernetes manifest: that it is one, and that the agent can do what it is for with the privileges that it has there,
//! and not with fewer.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use septwatch_tests::{septwatch, skip, support::process::HELD};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    container::Container,
    package::Root,
    servers::{program, until},
};

fn manifest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../userspace/package/kubernetes/septwatch.yaml")
}

/// The Python that has Kubernetes' schemas.
fn python() -> Result<PathBuf, String> {
    let python = env::var_os("SEPTWATCH_PYTHON").map(PathBuf::from);
    python.ok_or_else(|| "no Python with Kubernetes' schemas: `cargo xtask test 2` installs them".to_owned())
}

/// Its documents.
fn documents(python: &Path) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let said = Command::new(python).args(["-c", script]).arg(manifest()).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice(&said.stdout).unwrap()
}

fn document<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    documents.iter().find(|document| document["kind"] == kind).unwrap()
}

#[test]
fn the_manifest_is_what_kubernetes_takes() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => skip!("{why}"),
    };
    let validates = |path: &Path, version: &str| {
        let mut validate = Command::new(python.with_file_name("kubernetes-validate"));
        validate.args(["--strict", "--kubernetes-version", version]).arg(path).output().unwrap()
    };
    // From the first that has all of its fields.
    for version in ["1.30", "1.37"] {
        let said = validates(&manifest(), version);
        assert!(said.status.success(), "{version}: {}{}", text(&said.stdout), text(&said.stderr));
    }
    // A field that does not exist, and one of another type, are seen.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("septwatch.yaml");
    let whole = fs::read_to_string(manifest()).unwrap();
    for (right, wrong) in [("hostPID: true", "hostPid: true"), ("periodSeconds: 10", "periodSeconds: 10s")] {
        assert!(whole.contains(right));
        fs::write(&copy, whole.replace(right, wrong)).unwrap();
        assert!(!validates(&copy, "1.37").status.success(), "{wrong}");
    }
    let documents = documents(&python);
    let pod = &document(&documents, "DaemonSet")["spec"]["template"]["spec"];
    for volume in pod["volumes"].as_array().unwrap() {
        if let Some(name) = volume["configMap"]["name"].as_str() {
            assert_eq!(document(&documents, "ConfigMap")["metadata"]["name"], name);
        }
    }
    assert_eq!(pod["serviceAccountName"], document(&documents, "ServiceAccount")["metadata"]["name"]);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder as kubelets make them of a ConfigMap or a Secret: files behind links, in a folder that all may write.
fn volume(files: &[(&str, String)], mode: u64) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("..2026");
    fs::create_dir(&data).unwrap();
    symlink("..2026", folder.path().join("..data")).unwrap();
    for (name, contents) in files {
        fs::write(data.join(name), contents).unwrap();
        fs::set_permissions(data.join(name), fs::Permissions::from_mode(mode as u32)).unwrap();
        symlink(format!("..data/{name}"), folder.path().join(name)).unwrap();
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// A pod of the manifest on this host, but that it watches the demo.
struct Pod {
    root: Root,
    spec: Value,
    config: TempDir,
    secret: TempDir,
}

impl Pod {
    /// As the manifest and its comments have it.
    fn new(root: Root, documents: &[Value]) -> Self {
        let spec = document(documents, "DaemonSet")["spec"]["template"]["spec"].clone();
        let of = |volume: &str| {
            let volumes = spec["volumes"].as_array().unwrap();
            volumes.iter().find(|known| known["name"] == volume).unwrap().clone()
        };
        let config = document(documents, "ConfigMap")["data"]["agent.toml"].as_str().unwrap().to_owned();
        let mode = of("config")["configMap"]["defaultMode"].as_u64().unwrap();
        let config = volume(&[("agent.toml", config)], mode);
        let token = "0123456789abcdef0123456789abcdef";
        let pair = tempfile::tempdir().unwrap();
        let at = |name: &str| pair.path().join(name);
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        openssl.args(["-subj", "/CN=septwatch", "-keyout"]).arg(at("key")).arg("-out").arg(at("crt"));
        assert!(openssl.output().unwrap().status.success());
        let files = [
            ("tls.crt", fs::read_to_string(at("crt")).unwrap()),
            ("tls.key", fs::read_to_string(at("key")).unwrap()),
            ("token", token.to_owned()),
            ("probe", format!("header = \"Authorization: Bearer {token}\"")),
        ];
        let secret = volume(&files, of("metrics")["secret"]["defaultMode"].as_u64().unwrap());
        Self { root, spec, config, secret }
    }

    /// Without a capability.
    fn without(&self, capability: &str) -> Value {
        let mut spec = self.spec.clone();
        let added = &mut spec["containers"][0]["securityContext"]["capabilities"]["add"];
        let added = added.as_array_mut().unwrap();
        let before = added.len();
        added.retain(|name| name != capability);
        assert_eq!(added.len() + 1, before);
        spec
    }

    /// Begins one, as soon as nobody else on this host keeps the ledger, and returns when it is confined or has ended.
    fn begin(&self, spec: &Value) -> Container {
        let volumes = [("config", self.config.path().to_owned()), ("metrics", self.secret.path().to_owned())];
        let demo = ["--demo", "--seed", "7", "--pace", "20000"];
        until("the ledger is free", || {
            let mut container = Container::begin(&self.root, spec, &volumes, &demo);
            until("it is confined or ends", || {
                let confined = container.wrote("stderr").contains("septwatch: confined: ");
                (container.ended().is_some() || confined).then_some(())
            });
            let held = container.ended().is_some() && container.wrote("stderr").contains(HELD);
            (!held).then_some(container)
        })
    }

    fn probe(&self, name: &str) -> Vec<String> {
        let command = self.spec["containers"][0][name]["exec"]["command"].as_array().unwrap();
        command.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    }
}

/// Waits until a violation's kernel stack is told, and returns its functions.
fn kernel_stack(container: &mut Container) -> Vec<String> {
    until("a violation with a kernel stack", || {
        assert_eq!(container.ended(), None, "{}", container.wrote("stderr"));
        let lines = container.wrote("stdout");
        let mut events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let freed = events.find(|event| event["violation"] == "freed-while-mapped")?;
        let functions = freed["kernel_functions"].as_array().cloned().unwrap_or_default();
        Some(functions.iter().map(|name| name.as_str().unwrap().to_owned()).collect())
    })
}

#[test]
fn the_agent_needs_what_the_manifest_gives_and_no_more() {
    septwatch!();
    let needs = python().and_then(|python| {
        for name in ["crun", "curl", "openssl"] {
            program(name)?;
        }
        Ok((python, Root::installed()?))
    });
    let (python, root) = match needs {
        Ok(needs) => needs,
        Err(why) => skip!("{why}"),
    };
    let documents = documents(&python);
    let pod = Pod::new(root, &documents);
    let given = &pod.spec["containers"][0]["securityContext"]["capabilities"]["add"];
    assert_eq!(*given, serde_json::json!(["SYS_ADMIN", "SYSLOG", "SYS_PTRACE"]), "what is left out below");

    let mut whole = pod.begin(&pod.spec);
    until("the startup probe", || {
        assert_eq!(whole.ended(), None, "{}", whole.wrote("stderr"));
        whole.exec(&pod.probe("startupProbe")).status.success().then_some(())
    });
    for probe in ["readinessProbe", "livenessProbe"] {
        let said = whole.exec(&pod.probe(probe));
        assert!(said.status.success(), "{probe}: {}", text(&said.stderr));
    }
    // Who cannot show the token is not let in.
    let mut stranger = pod.probe("readinessProbe");
    let config = stranger.iter().position(|word| word == "--config").unwrap();
    stranger.drain(config..config + 2);
    assert_eq!(whole.exec(&stranger).status.code(), Some(22));
    let named = kernel_stack(&mut whole);
    assert!(named.first().is_some_and(|place| place.contains('+')), "{named:?}");
    assert!(!whole.wrote("stderr").contains("which this process was not given"), "{}", whole.wrote("stderr"));
    whole.end();

    let mut refused = pod.begin(&pod.without("SYS_ADMIN"));
    assert_eq!(until("it ends", || refused.ended()), 3);
    assert!(refused.wrote("stderr").contains("CAP_SYS_ADMIN"), "{}", refused.wrote("stderr"));

    let mut nameless = pod.begin(&pod.without("SYSLOG"));
    let functions = kernel_stack(&mut nameless);
    assert!(!functions.iter().any(|place| place.contains('+')), "{functions:?}");
    nameless.end();

    let blind = pod.begin(&pod.without("SYS_PTRACE"));
    let lacks = "observe needs CAP_SYS_PTRACE, which this process was not given";
    assert!(blind.wrote("stderr").contains(lacks), "{}", blind.wrote("stderr"));
}
