//! The JSON schema of policy files, for editors and for those who generate them.

use super::file::Written;

/// The schema, as it is in `policy.schema.json`.
///
/// # Errors
/// It cannot be written as JSON.
pub fn text() -> Result<String, serde_json::Error> {
    let schema = schemars::schema_for!(Written);
    serde_json::to_string_pretty(&schema).map(|text| text + "\n")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test")]

    #[test]
    fn the_file_is_up_to_date() {
        let file = include_str!("policy.schema.json");
        assert_eq!(
            super::text().unwrap(),
            file,
            "write it anew: septwatch policy schema > policy.schema.json"
        );
    }
}
