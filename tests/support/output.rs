//! What `demo --json` prints, and what must hold of every line of it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::process::Done;

/// Violations, by name.
pub type Kinds = BTreeMap<String, u64>;

/// The lines of one scenario, the result last.
#[derive(Debug)]
pub struct Scenario {
    /// All but the result.
    pub lines: Vec<Value>,
    /// The result.
    pub result: Value,
}

/// The scenarios of a run, in their order.
#[track_caller]
pub fn scenarios(done: &Done) -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    let mut lines = Vec::new();
    for line in done.json() {
        if line["type"] == "result" {
            scenarios.push(Scenario { lines: std::mem::take(&mut lines), result: line });
        } else {
            lines.push(line);
        }
    }
    assert!(lines.is_empty(), "lines after the last result: {done}");
    scenarios
}

/// The only scenario of a run.
#[track_caller]
pub fn scenario(done: &Done) -> Scenario {
    let [only] = scenarios(done).try_into().unwrap_or_else(|_| panic!("not one result: {done}"));
    only
}

/// A number that must be there.
#[track_caller]
pub fn number(object: &Value, key: &str) -> u64 {
    object[key].as_u64().unwrap_or_else(|| panic!("{key} is no number: {object}"))
}

impl Scenario {
    /// Lines of a type.
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.lines.iter().filter(move |line| line["type"] == kind)
    }

    /// When something was said that contains these words, in ns of CLOCK_MONOTONIC.
    #[track_caller]
    pub fn said(&self, words: &str) -> u64 {
        let step =
            self.of("step").find(|step| step["text"].as_str().is_some_and(|text| text.contains(words)));
        number(step.unwrap_or_else(|| panic!("nothing said {words:?}: {:#?}", self.lines)), "time_ns")
    }

    /// The violations that were printed, counted.
    pub fn printed(&self) -> Kinds {
        let mut kinds = Kinds::new();
        for violation in self.of("violation") {
            *kinds.entry(violation["violation"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        kinds
    }

    /// A column of the result's table, without kinds of which there are none.
    pub fn column(&self, name: &str) -> Kinds {
        let rows = self.result["rows"].as_array().expect("rows");
        let row = |row: &Value| (row["violation"].as_str().expect("a name").to_owned(), number(row, name));
        rows.iter().map(row).filter(|(_, count)| *count != 0).collect()
    }

    /// Fails the test where the two streams do not add up; returns how many records were lost of each.
    #[track_caller]
    pub fn lost(&self) -> [u64; 2] {
        ["vital_records", "page_records"].map(|stream| {
            let stream = &self.result[stream];
            let [produced, received, lost] = ["produced", "received", "lost"].map(|key| number(stream, key));
            assert_eq!(produced, received + lost, "{}", self.result);
            lost
        })
    }

    /// Fails the test unless expected = found in every way that there is.
    #[track_caller]
    pub fn is_as_expected(&self) {
        let result = &self.result;
        assert_eq!(result["equal"], true, "{result}");
        assert_eq!(result["missing"], Value::Array(Vec::new()), "{result}");
        assert_eq!(result["unexpected"], Value::Array(Vec::new()), "{result}");
        assert_eq!(result["ledger_equals_module"], true, "{result}");
        assert_eq!(result["calls_not_read"], 0, "{result}");
        assert_eq!(result["frames_outside_the_ledger"], 0, "{result}");
        assert_eq!(self.lost(), [0, 0], "{result}");
        // What the host made of a frame that was freed too early is nobody's to foresee.
        let mut found = self.column("found");
        for (kind, count) in self.column("consequences") {
            assert_eq!(kind, "reused-while-mapped", "{result}");
            *found.get_mut(&kind).expect("found, since it has consequences") -= count;
        }
        found.retain(|_, count| *count != 0);
        assert_eq!(found, self.column("expected"), "{result}");
        assert_eq!(self.printed(), self.column("found"), "{result}");
        for violation in self.of("violation") {
            is_a_violation(violation);
        }
    }
}

/// Fails the test unless a violation has what every reader of the JSON counts on.
#[track_caller]
pub fn is_a_violation(violation: &Value) {
    let text = |key: &str| {
        violation[key].as_str().unwrap_or_else(|| panic!("{key} is no text: {violation}")).to_owned()
    };
    let null = |key: &str| violation.get(key).unwrap_or_else(|| panic!("no {key}: {violation}")).is_null();
    let name = text("violation");
    assert_eq!(text("confidence"), "certain", "{violation}");
    assert_eq!(violation["reasons"], Value::Array(Vec::new()), "{violation}");
    for key in ["time_ns", "td", "tdr_pfn", "pid", "tid", "frames"] {
        assert!(number(violation, key) > 0, "{key}: {violation}");
    }
    for key in ["cpu", "cgroup"] {
        number(violation, key);
    }
    let released = name.starts_with("freed-");
    let reused = name == "reused-while-mapped";
    if released || reused {
        assert!(text("comm").len() < 16, "{violation}");
        assert!(number(violation, "pfn") > 0, "{violation}");
        let hooks: &[&str] =
            if released { &["mm_page_free", "mm_page_free_batched"] } else { &["mm_page_alloc"] };
        assert!(hooks.contains(&&*text("hook")), "{violation}");
        let failed = !null("failed_leaf");
        assert_eq!(
            null("since_failed_zap_ns"),
            !failed,
            "null without a failed zap, and only then: {violation}"
        );
        assert_eq!(null("failed_status"), !failed, "{violation}");
        if failed {
            let (since, at) = (number(violation, "since_failed_zap_ns"), number(violation, "failed_ns"));
            assert_eq!(at + since, number(violation, "time_ns"), "{violation}");
        }
        let stack = violation["kernel_stack"].as_array().expect("a stack");
        assert!(!stack.is_empty(), "nobody is seen to have released it: {violation}");
        for address in stack {
            let address =
                address.as_str().and_then(|text| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok());
            assert!(address.is_some_and(|address| address >= 0xffff_8000_0000_0000), "{violation}");
        }
    } else {
        assert_eq!(text("comm"), super::process::ACTOR, "{violation}");
        assert!(text("hook").starts_with("TDH."), "{violation}");
        assert!(null("since_failed_zap_ns"), "{violation}");
    }
    assert_eq!(null("window_ns"), !reused, "{violation}");
    // Which of the steps failed is the point of these.
    let about_failure = matches!(&*name, "zap-failed" | "map-failed" | "teardown-leak");
    assert!(!about_failure || !null("failed_leaf") && !null("failed_status_name"), "{violation}");
    let about_leaf = matches!(
        &*name,
        "freed-while-mapped"
            | "freed-while-blocked"
            | "freed-unflushed"
            | "zap-failed"
            | "map-failed"
            | "double-map"
    );
    assert!(!about_leaf || number(violation, "gfn") > 0, "{violation}");
}
