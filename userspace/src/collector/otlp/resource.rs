//! Who tells: this agent, on this boot of this host.

use std::{collections::BTreeMap, fs};

use opentelemetry_proto::tonic::{common::v1::InstrumentationScope, resource::v1::Resource};

use super::attributes::{attribute, text};
use crate::{collector::metrics::About, here};

/// The version of the conventions that names are taken from.
pub const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

/// What stands above everything that is sent.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Host, service, operating system.
    pub resource: Resource,
    /// What observed it.
    pub scope: InstrumentationScope,
    /// The boot's id, which is no secret and never comes back.
    pub boot: String,
}

impl Origin {
    /// Of this host.
    pub fn here(about: &About) -> Self {
        let boot = here::boot_id().unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION");
        let name = here::name();
        let release =
            fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release"));
        let release = release.unwrap_or_default();
        let os = os_release(&release);
        let of_os = |key: &str| os.get(key).cloned();
        let attributes = [
            ("service.name", Some("septwatch".to_owned())),
            ("service.version", Some(version.to_owned())),
            // There is one agent on a host at a time, and the next one goes on with the same counters.
            ("service.instance.id", Some(boot.clone())),
            ("host.name", Some(name)),
            ("host.arch", Some("amd64".to_owned())),
            ("os.type", Some("linux".to_owned())),
            ("os.name", of_os("NAME")),
            ("os.version", of_os("VERSION_ID")),
            ("os.description", of_os("PRETTY_NAME")),
            ("septwatch.boot_id", Some(boot.clone())),
            ("septwatch.kernel", Some(about.kernel.clone())),
            ("septwatch.tdx_module", about.tdx_module.clone()),
            ("septwatch.source", Some(about.source.to_owned())),
        ];
        let attributes = attributes
            .into_iter()
            .filter_map(|(key, value)| Some(attribute(key, text(value.filter(|value| !value.is_empty())?))));
        Self {
            resource: Resource { attributes: attributes.collect(), ..Resource::default() },
            scope: InstrumentationScope {
                name: "septwatch".to_owned(),
                version: version.to_owned(),
                ..InstrumentationScope::default()
            },
            boot,
        }
    }
}

/// os-release(5), without what a shell would make of its values.
fn os_release(text: &str) -> BTreeMap<&str, String> {
    let pairs = text.lines().filter_map(|line| line.trim().split_once('='));
    pairs.map(|(key, value)| (key, value.trim_matches(['"', '\'']).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operating_system_is_as_its_file_has_it() {
        let os = os_release("NAME=\"Debian GNU/Linux\"\n# no\nVERSION_ID='13'\nID=debian\n");
        assert_eq!((os["NAME"].as_str(), os["VERSION_ID"].as_str()), ("Debian GNU/Linux", "13"));
    }
}
