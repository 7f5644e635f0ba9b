//! From what a user wrote to types in which nothing can be wrong: all problems at once, each with its path. Pure.
//!
//! It repeats those rules of the schema whose breach could do harm (an object can be older than the schema) and
//! adds what a schema cannot say. What this version of the operator does not do is refused here by name, so that
//! no field is ever ignored silently.

mod cell;
mod index;
mod jvm;
mod nodes;
mod placement;
mod pod_security;
mod pod_template;
mod pod_volumes;
pub(crate) mod quantity;
mod security;
mod settings;

#[cfg(test)]
mod cell_tests;
#[cfg(test)]
mod placement_tests;
#[cfg(test)]
mod pod_template_tests;
#[cfg(test)]
mod test_support;

use searchcell_crds::Reason;

pub use cell::validate_cell;
pub(crate) use placement::age;
pub use placement::validate_placement;

/// One thing that is wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where, for example `spec.nodes.data.settings["node.roles"]`.
    pub path: String,
    /// What is wrong, and the next valid action.
    pub message: String,
    /// From the closed list; what the condition says.
    pub reason: Reason,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.path, self.message)
    }
}

/// Problems as they are found.
#[derive(Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, reason: Reason, path: impl Into<String>, message: impl Into<String>) {
        let (path, message) = (visible(&path.into()), visible(&message.into()));
        self.0.push(Problem { path, message, reason });
    }

    fn invalid(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.add(Reason::InvalidSpec, path, message);
    }

    fn not_yet(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.add(Reason::NotSupportedYet, path, message);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sorted by path, each once.
    fn sorted(mut self) -> Vec<Problem> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}

/// Longest path or message of one problem, in characters: one may not push the others out.
const MAX_WORDS: usize = 1000;

/// Paths repeat names that users chose, and end on terminals: what is hidden in them is spelled out.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(MAX_WORDS));
    for c in text.chars().take(MAX_WORDS) {
        if settings::is_hidden(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A DNS label: lower-case letters, digits and dashes, no dash at either end.
fn is_dns_label(text: &str, max: usize) -> bool {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=max).contains(&text.len())
        && text.bytes().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The name of a SearchCell: it begins the names of Services.
fn is_cell_name(text: &str) -> bool {
    is_dns_label(text, 63) && text.starts_with(|c: char| c.is_ascii_lowercase())
}

/// A value of a label, or the part of its key after the slash; empty is none.
fn is_label_value(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&text.len())
        && text.bytes().all(inside)
        && text.starts_with(edge)
        && text.ends_with(edge)
}

/// The key of a label.
fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => {
            prefix.len() <= 253
                && prefix.split('.').all(|part| is_dns_label(part, 63))
                && is_label_value(name)
        }
        None => is_label_value(text),
    }
}
