//! Work like that of a chat: messages of 300 to 500 bytes, most of them new, some edited, some deleted, some delivered
//! twice; a few tenants write most of it. The same seed yields the same work. Pure.

use std::collections::VecDeque;
use std::fmt::Write;

use crate::random::Random;

/// How the work looks.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Tenants; the `n`th of them writes `1/n` as much as the first (Zipf, s = 1).
    pub tenants: u64,
    /// Share of edits of recent messages.
    pub edits: f64,
    /// Share of deletes of recent messages.
    pub deletes: f64,
    /// Share of operations that come once more.
    pub duplicates: f64,
    /// Operations come up to so many others later, and edits and deletes are of messages as recent as that, so that many
    /// come before what they are about; 0: in order.
    pub reordered: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { tenants: 1_000_000, edits: 0.07, deletes: 0.03, duplicates: 0.015, reordered: 0 }
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Tenant.
    pub tenant: u64,
    /// Id of the message: a snowflake.
    pub id: u64,
    /// Its version, from 1.
    pub version: i64,
    /// The message; absent: it is deleted.
    pub document: Option<String>,
}

impl Operation {
    /// Adds its lines as a client of the router sends them. `versioned`: with its version.
    pub fn lines(&self, versioned: bool, out: &mut Vec<u8>) {
        let version = if versioned { format!(",\"version\":{}", self.version) } else { String::new() };
        let verb = if self.document.is_some() { "index" } else { "delete" };
        let action =
            format!("{{\"{verb}\":{{\"_id\":\"{}\",\"routing\":\"{}\"{version}}}}}\n", self.id, self.tenant);
        self.finish(&action, out);
    }

    /// The same as a client of Elasticsearch itself sends them, that knows the index.
    pub fn resolved_lines(&self, index: &str, versioned: bool, out: &mut Vec<u8>) {
        let version = if versioned {
            format!(",\"version\":{},\"version_type\":\"external\"", self.version)
        } else {
            String::new()
        };
        let verb = if self.document.is_some() { "index" } else { "delete" };
        let action = format!(
            "{{\"{verb}\":{{\"_index\":\"{index}\",\"_id\":\"{tenant}~{}\",\"routing\":\"{tenant}\"{version}}}}}\n",
            self.id,
            tenant = self.tenant
        );
        self.finish(&action, out);
    }

    fn finish(&self, action: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(action.as_bytes());
        if let Some(document) = &self.document {
            out.extend_from_slice(document.as_bytes());
            out.push(b'\n');
        }
    }

    /// Its id as it is stored.
    pub fn stored_id(&self) -> String {
        format!("{}~{}", self.tenant, self.id)
    }
}

/// The work, without an end.
#[derive(Debug)]
pub struct Work {
    shape: Shape,
    random: Random,
    next: u64,
    /// Tenant, id and version of recent messages.
    recent: VecDeque<(u64, u64, i64)>,
    /// What comes later, and after how many operations.
    late: Vec<(usize, Operation)>,
}

/// Messages that may still be edited.
const RECENT: usize = 5_000;
/// Milliseconds are in a snowflake from this bit on.
const MILLIS: u64 = 1 << 22;
/// Where messages begin in time.
const EPOCH: u64 = 330_000_000_000;

const WORDS: [&str; 32] = [
    "that",
    "is",
    "what",
    "people",
    "write",
    "when",
    "they",
    "talk",
    "about",
    "games",
    "and",
    "weather",
    "grüße",
    "łódź",
    "日本語",
    "привет",
    "🙂",
    "🎉🎉",
    "ok",
    "lol",
    "tomorrow",
    "at",
    "eight",
    "we",
    "should",
    "try",
    "the",
    "new",
    "map",
    "\\\"quoted\\\"",
    "line\\nbreak",
    "https://example.com/a/b?c=d",
];

impl Work {
    /// Work of a shape.
    pub fn new(shape: Shape, seed: u64) -> Self {
        Self { shape, random: Random::new(seed), next: 0, recent: VecDeque::new(), late: Vec::new() }
    }

    fn tenant(&mut self) -> u64 {
        let tenants = self.shape.tenants.max(1) as f64;
        // The inverse of the sum of 1/n, which is the logarithm.
        let rank = ((tenants + 1.0).ln() * self.random.share()).exp() as u64;
        (80_000_000_000 + rank * 7_919) * MILLIS + rank % 4_096
    }

    fn document(&mut self, tenant: u64, id: u64, edited: bool) -> String {
        let (kind, author) = (self.random.share(), self.random.below(1 << 40) * MILLIS);
        let channel = tenant + self.random.below(30) * MILLIS;
        let length = match kind {
            _ if kind < 0.70 => 40 + self.random.below(120),
            _ if kind < 0.95 => 150 + self.random.below(150),
            _ => 200 + self.random.below(400),
        } as usize;
        let mut content = String::with_capacity(length + 32);
        while content.len() < length {
            if !content.is_empty() {
                content.push(' ');
            }
            content.push_str(self.random.pick(&WORDS));
        }
        let embeds = if kind < 0.97 {
            String::new()
        } else {
            format!("{{\"type\":\"link\",\"title\":\"{}\"}}", "what is behind it ".repeat(20))
        };
        let edited = if edited { "\"2026-11-22T06:41:35.120Z\"" } else { "null" };
        let mut document = String::with_capacity(length + 400);
        write!(
            document,
            "{{\"id\":\"{id}\",\"channel_id\":\"{channel}\",\"guild_id\":\"{tenant}\",\"author\":{{\"id\":\"{author}\",\"name\":\"somebody\",\"bot\":false}},\"content\":\"{content}\",\"timestamp\":\"2026-11-22T06:41:34.120Z\",\"edited\":{edited},\"mentions\":[],\"embeds\":[{embeds}]}}"
        )
        .unwrap();
        document
    }

    fn fresh(&mut self) -> Operation {
        let chance = self.random.share();
        let changed = (chance < self.shape.edits + self.shape.deletes && !self.recent.is_empty())
            .then(|| usize::try_from(self.random.below(self.recent.len() as u64)).unwrap());
        let Some(position) = changed else {
            self.next += 1;
            let id = (EPOCH + self.next / 8) * MILLIS + self.next;
            let tenant = self.tenant();
            self.recent.push_back((tenant, id, 1));
            let most = if self.shape.reordered > 0 { self.shape.reordered } else { RECENT };
            if self.recent.len() > most {
                self.recent.pop_front();
            }
            return Operation { tenant, id, version: 1, document: Some(self.document(tenant, id, false)) };
        };
        self.recent[position].2 += 1;
        let (tenant, id, version) = self.recent[position];
        let document = (chance < self.shape.edits).then(|| self.document(tenant, id, true));
        Operation { tenant, id, version, document }
    }
}

impl Iterator for Work {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        loop {
            self.late.iter_mut().for_each(|(left, _)| *left = left.saturating_sub(1));
            if let Some(due) = self.late.iter().position(|(left, _)| *left == 0) {
                return Some(self.late.swap_remove(due).1);
            }
            let one = self.fresh();
            let later =
                |random: &mut Random, most: usize| 1 + usize::try_from(random.below(most as u64)).unwrap();
            if self.random.chance(self.shape.duplicates) {
                let left = later(&mut self.random, self.shape.reordered.max(50));
                self.late.push((left, one.clone()));
            }
            if self.shape.reordered > 0 && self.random.chance(0.5) {
                let left = later(&mut self.random, self.shape.reordered);
                self.late.push((left, one));
                continue;
            }
            return Some(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_same_seed_yields_the_same_work() {
        let take = |seed| Work::new(Shape::default(), seed).take(500).collect::<Vec<_>>();
        assert_eq!(take(3), take(3));
        assert_ne!(take(3), take(4));
    }

    #[test]
    fn it_looks_like_a_chat() {
        let work: Vec<Operation> = Work::new(Shape::default(), 1).take(20_000).collect();
        let bytes: usize = work.iter().filter_map(|one| one.document.as_ref()).map(String::len).sum();
        let deletes = work.iter().filter(|one| one.document.is_none()).count();
        let edits = work.iter().filter(|one| one.document.is_some() && one.version > 1).count();
        let mean = bytes / (work.len() - deletes);
        assert!((300..500).contains(&mean), "{mean}");
        assert!((400..800).contains(&deletes) && (1_100..1_700).contains(&edits), "{deletes} {edits}");
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        work.iter().for_each(|one| *counts.entry(one.tenant).or_default() += 1);
        let most = counts.values().max().unwrap();
        assert!((600..2_000).contains(most) && counts.len() > 5_000, "{most} of {}", counts.len());
        for one in &work {
            let mut lines = Vec::new();
            one.lines(true, &mut lines);
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                serde_json::from_slice::<serde_json::Value>(line).unwrap();
            }
        }
    }

    #[test]
    fn no_version_comes_with_two_contents() {
        let shape = Shape { reordered: 40, tenants: 50, ..Shape::default() };
        let mut seen: BTreeMap<(u64, i64), Option<String>> = BTreeMap::new();
        let (mut twice, mut backwards) = (0, 0);
        let mut highest: BTreeMap<u64, i64> = BTreeMap::new();
        for one in Work::new(shape, 9).take(5_000) {
            let before = highest.entry(one.id).or_default();
            backwards += usize::from(one.version < *before);
            *before = one.version.max(*before);
            if let Some(before) = seen.insert((one.id, one.version), one.document.clone()) {
                assert_eq!(before, one.document);
                twice += 1;
            }
        }
        assert!(twice > 20 && backwards > 20, "{twice} {backwards}");
    }
}
