//! A bus that lets in who shows a user's credentials, as NATS has them: tokens signed by an account's key, which an
//! operator's has signed. <https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt>

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use rustix::process::Signal;
use septwatch_tests::{septwatch, skip, support::process::Run};
use serde_json::{Value, json};

use super::{
    bus::Nats,
    servers::{program, until},
};

/// What somebody says of somebody, signed.
fn token(issuer: &KeyPair, subject: &KeyPair, name: &str, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let body = json!({
        "jti": name, "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(), "name": name,
        "nats": claims,
    });
    let signed = format!("{}.{}", encode(&head), encode(&body));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn account(operator: &KeyPair, account: &KeyPair, name: &str, jetstream: i64) -> String {
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": jetstream, "disk_storage": jetstream, "streams": jetstream, "consumer": jetstream,
    });
    token(operator, account, name, &json!({"type": "account", "version": 2, "limits": limits}))
}

/// A user's file, as `nsc generate creds` writes it; nobody else may read it.
fn credentials(path: &Path, account: &KeyPair, user: &KeyPair, permissions: Value) {
    let mut claims = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
    for (name, allowed) in permissions.as_object().unwrap() {
        claims[name] = allowed.clone();
    }
    let token = token(account, user, "agent", &claims);
    let seed = user.seed().unwrap();
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn who_shows_credentials_is_let_in_and_told_what_they_are_not_good_for() {
    let septwatch = septwatch!();
    if let Err(why) = program("nats-server") {
        skip!("{why}");
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (operator, system, hosts) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let of_operator = json!({"type": "operator", "version": 2, "system_account": system.public_key()});
    let config = format!(
        "operator: {}\nresolver: MEMORY\nsystem_account: {}\nresolver_preload: {{\n  {}: {}\n  {}: {}\n}}\n",
        token(&operator, &operator, "operator", &of_operator),
        system.public_key(),
        system.public_key(),
        account(&operator, &system, "SYS", 0),
        hosts.public_key(),
        account(&operator, &hosts, "HOSTS", -1),
    );
    fs::write(at("nats.conf"), config).unwrap();
    let nats = Nats::configured(&at("store"), Some(&at("nats.conf")));
    let url = nats.url();
    let files = ["good", "mute", "stranger"].map(at);
    let [good, mute, stranger] = &files;
    credentials(good, &hosts, &KeyPair::new_user(), json!({}));
    credentials(mute, &hosts, &KeyPair::new_user(), json!({"pub": {"deny": ["septwatch.>"]}}));
    credentials(stranger, &KeyPair::new_account(), &KeyPair::new_user(), json!({}));

    let check = |file: Option<&Path>| {
        let mut run = Run::new(&septwatch, &["check", "--fleet", &url, "--json"]);
        if let Some(file) = file {
            run.command().arg("--fleet-credentials").arg(file);
        }
        run.finish()
    };
    let agent = |file: &Path| {
        let mut run = Run::new(&septwatch, &["agent", "--demo", "--metrics-listen", "none"]);
        run.command().args(["--bus-servers", &url, "--bus-host", "lender", "--bus-credentials"]).arg(file);
        run.command().arg("--bus-spool").arg(at("spool"));
        run.start_acting()
    };
    let said = |running: septwatch_tests::support::process::Running| {
        std::thread::sleep(std::time::Duration::from_secs(4));
        running.signal(Signal::TERM);
        running.finish().exits(0)
    };
    said(agent(stranger)).says(&["output bus", "authorization violation", "events stay in the spool"]);
    said(agent(mute)).says(&["output bus", "events stay in the spool"]);
    let running = agent(good);
    until("the fleet's view has it", || {
        let done = check(Some(good));
        (done.code()? < 2 && done.json().first()?["events"].as_u64()? > 50).then_some(())
    });
    running.signal(Signal::TERM);
    let done = running.finish().exits(0);
    assert!(!done.stderr.contains("output bus"), "{done}");
    check(None).exits(3).says(&["authorization violation"]);
    fs::set_permissions(good, fs::Permissions::from_mode(0o644)).unwrap();
    check(Some(good)).exits(2).says(&["credentials", "chmod 0600"]);
}
