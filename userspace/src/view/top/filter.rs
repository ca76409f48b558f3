//! Filter expressions.

/// Which rows are shown.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// As it was typed.
    pub text: String,
}
