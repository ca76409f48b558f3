//! Errors in words.

/// An error with its causes. Those that are also shown alone carry their cause's words already.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut told = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let cause = error.to_string();
        if !told.ends_with(&cause) {
            let colon = if told.is_empty() { "" } else { ": " };
            told = told + colon + &cause;
        }
        next = error.source();
    }
    told
}
