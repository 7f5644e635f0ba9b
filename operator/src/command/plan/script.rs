//! What is printed: lines in groups, a summary, and what it comes to for the exit code. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// It would be made.
    Create,
    /// It would be changed.
    Change,
    /// It would go.
    Delete,
    /// It would not be done; a person has to do something first.
    Hold,
    /// It is not valid.
    Refuse,
    /// It would be done later, when something else has happened.
    Later,
}

impl Verb {
    const ALL: [Verb; 6] = [Verb::Create, Verb::Change, Verb::Delete, Verb::Hold, Verb::Refuse, Verb::Later];

    fn word(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Change => "change",
            Verb::Delete => "delete",
            Verb::Hold => "hold",
            Verb::Refuse => "refuse",
            Verb::Later => "later",
        }
    }

    fn counted(self) -> &'static str {
        match self {
            Verb::Create => "to create",
            Verb::Change => "to change",
            Verb::Delete => "to delete",
            Verb::Hold => "held",
            Verb::Refuse => "refused",
            Verb::Later => "for later",
        }
    }
}

/// One line, with what differs below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is about.
    pub verb: Verb,
    /// Which object; with the same one, lines are about the same thing.
    pub subject: String,
    /// More of it.
    pub more: String,
    /// What differs.
    pub details: Vec<String>,
}

impl Line {
    /// A line without details.
    pub fn new(verb: Verb, subject: impl Into<String>, more: impl Into<String>) -> Self {
        Self { verb, subject: subject.into(), more: more.into(), details: Vec::new() }
    }

    /// With what differs.
    pub fn with(self, details: Vec<String>) -> Self {
        Self { details, ..self }
    }
}

/// Lines of one object of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    lines: Vec<Line>,
}

impl Group {
    /// Adds a line. What is made in this plan is not said to change, too, and what changes twice changes once.
    pub fn add(&mut self, line: Line) {
        if line.verb == Verb::Change {
            let known = self.lines.iter_mut().find(|known| {
                known.subject == line.subject && matches!(known.verb, Verb::Create | Verb::Change)
            });
            match known {
                Some(known) if known.verb == Verb::Create => return,
                Some(known) if known.more == line.more => {
                    let more: Vec<String> =
                        line.details.into_iter().filter(|detail| !known.details.contains(detail)).collect();
                    known.details.extend(more);
                    return;
                }
                _ => {}
            }
        }
        if !self.lines.contains(&line) {
            self.lines.push(line);
        }
    }

    /// Puts a line in the place of that about the same object, if there is one.
    pub fn set(&mut self, line: Line) {
        match self.lines.iter_mut().find(|known| known.subject == line.subject) {
            Some(known) => *known = line,
            None => self.lines.push(line),
        }
    }

    /// Its lines.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }
}

/// Everything that is printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// With their titles, in order.
    pub groups: Vec<(String, Group)>,
    /// What is not in the plan, for a person.
    pub remarks: Vec<String>,
}

impl Script {
    /// True when there is nothing to do, and nothing stands in the way.
    pub fn is_empty(&self) -> bool {
        self.groups.iter().all(|(_, group)| group.lines.is_empty())
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        for (title, group) in self.groups.iter().filter(|(_, group)| !group.lines.is_empty()) {
            let _ = writeln!(text, "{title}");
            for line in &group.lines {
                let more = match (line.more.as_str(), line.subject.as_str()) {
                    ("", _) => String::new(),
                    (more, "") => more.to_owned(),
                    (more, _) => format!(": {more}"),
                };
                let _ = writeln!(text, "  {:<7}{}{more}", line.verb.word(), line.subject);
                for detail in &line.details {
                    let _ = writeln!(text, "      {detail}");
                }
            }
            text.push('\n');
        }
        for remark in &self.remarks {
            let _ = writeln!(text, "Note: {remark}");
        }
        let _ = writeln!(text, "{}", self.summary());
        text
    }

    fn summary(&self) -> String {
        let mut counts: BTreeMap<Verb, usize> = BTreeMap::new();
        for line in self.groups.iter().flat_map(|(_, group)| &group.lines) {
            *counts.entry(line.verb).or_default() += 1;
        }
        let counted = |verb: &Verb| Some(format!("{} {}", counts.get(verb)?, verb.counted()));
        let counted: Vec<String> = Verb::ALL.iter().filter_map(counted).collect();
        if counted.is_empty() {
            "Nothing to do.".to_owned()
        } else {
            format!("Plan: {}.", counted.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_grouped_and_counted() {
        let mut cell = Group::default();
        cell.add(Line::new(Verb::Create, "Service guilds-a", ""));
        cell.add(Line::new(Verb::Change, "Service guilds-a", "it differs"));
        cell.add(Line::new(Verb::Change, "Deployment x", "").with(vec!["- a: 1".into(), "+ a: 2".into()]));
        cell.add(Line::new(Verb::Change, "Deployment x", "").with(vec!["+ a: 2".into(), "+ b: 1".into()]));
        cell.add(Line::new(Verb::Hold, "", "NeedsMigration: no"));
        cell.add(Line::new(Verb::Hold, "", "NeedsMigration: no"));
        let groups =
            vec![("SearchCell search/guilds".to_owned(), cell), ("nothing here".into(), Group::default())];
        let script = Script { groups, remarks: vec!["x".into()] };
        assert_eq!(
            script.text(),
            "SearchCell search/guilds\n  create Service guilds-a\n  change Deployment x\n      - a: 1\n      + a: 2\n      + b: 1\n  \
             hold   NeedsMigration: no\n\nNote: x\nPlan: 1 to create, 1 to change, 1 held.\n"
        );
        assert!(!script.is_empty());
    }

    #[test]
    fn nothing_is_nothing() {
        let script = Script { groups: vec![("x".into(), Group::default())], remarks: vec![] };
        assert!(script.is_empty());
        assert_eq!(script.text(), "Nothing to do.\n");
    }
}
