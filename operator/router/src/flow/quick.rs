//! Reads an answer to a bulk as Elasticsearch writes it: items of what was done field by field, in its order, and only
//! the others as the JSON that they are. A reader of any JSON takes several times as long for each item, which is more
//! than anything else that is done for a document. Pure.

use super::answer::{Done, Outcome};
use super::classify;
use super::reply::{self, ItemReply};

/// More digits may not fit a number.
const DIGITS: usize = 18;

/// The items of an answer to `sent` operations; absent: it is for the general reader, who says what is wrong with it, if
/// anything is.
pub fn items(body: &[u8], sent: usize) -> Option<Vec<ItemReply>> {
    let mut text = Text(body);
    let mut items = Vec::with_capacity(sent);
    text.skip("{\"items\":[")?;
    while items.len() < sent {
        if !items.is_empty() {
            text.skip(",")?;
        }
        let before = text.0;
        let item = text.done().or_else(|| {
            let (item, rest) = reply::first(before)?;
            text.0 = rest;
            Some(item)
        });
        items.push(item?);
    }
    text.skip("]}")?;
    text.0.is_empty().then_some(items)
}

/// What is left to be read.
struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn skip(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text.as_bytes())?;
        Some(())
    }

    /// The value of the first that comes next.
    fn one_of<T: Copy>(&mut self, choices: &[(&str, T)]) -> Option<T> {
        choices.iter().find_map(|(text, value)| self.skip(text).map(|()| *value))
    }

    fn number(&mut self) -> Option<i64> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at_checked(count)?;
        // JSON has no numbers that begin with a needless 0.
        if count == 0 || count > DIGITS || (count > 1 && digits.first() == Some(&b'0')) {
            return None;
        }
        self.0 = rest;
        Some(digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    }

    /// An item of something that was done.
    fn done(&mut self) -> Option<ItemReply> {
        self.one_of(&[("{\"index\":{", ()), ("{\"delete\":{", ()), ("{\"create\":{", ())])?;
        self.skip("\"_version\":")?;
        let version = self.number()?;
        self.skip(",\"result\":")?;
        let result = self.one_of(&[
            ("\"created\"", Outcome::Created),
            ("\"updated\"", Outcome::Updated),
            ("\"deleted\"", Outcome::Deleted),
            ("\"not_found\"", Outcome::NotFound),
            ("\"noop\"", Outcome::Noop),
        ])?;
        self.skip(",\"_shards\":{\"total\":")?;
        let total = u32::try_from(self.number()?).ok()?;
        self.skip(",\"successful\":")?;
        let successful = u32::try_from(self.number()?).ok()?;
        self.skip(",\"failed\":")?;
        let failed = u32::try_from(self.number()?).ok()?;
        self.skip("},\"_seq_no\":")?;
        let seq_no = self.number()?;
        self.skip(",\"_primary_term\":")?;
        let primary_term = self.number()?;
        self.skip(",\"status\":")?;
        let status = u16::try_from(self.number()?).ok()?;
        self.skip("}}")?;
        let shards = [total, successful, failed];
        Some(ItemReply {
            verdict: classify::item(status, None),
            said: Ok(Done { status, result, version, seq_no, primary_term, shards }),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reply;
    use super::*;

    /// An item as Elasticsearch 9 writes it with [`reply::FILTER`].
    fn item(verb: &str, result: &str, version: i64, status: u16) -> String {
        format!(
            r#"{{"{verb}":{{"_version":{version},"result":"{result}","_shards":{{"total":3,"successful":2,"failed":0}},"_seq_no":41,"_primary_term":7,"status":{status}}}}}"#
        )
    }

    #[test]
    fn what_was_done_is_read() {
        let body = format!(
            r#"{{"items":[{},{}]}}"#,
            item("index", "created", 0, 201),
            item("delete", "not_found", 1_795_212_345_678, 404)
        );
        let items = items(body.as_bytes(), 2).unwrap();
        assert_eq!(items, reply::general(body.as_bytes(), 2).unwrap());
        assert_eq!(items[1].said.as_ref().unwrap().version, 1_795_212_345_678);
        // An error between them is read as any JSON; only the frame has to be as it is.
        let error = r#"{"index":{"error":{"type":"t","reason":"},{"},"status":409}}"#;
        let done = item("index", "updated", 3, 200);
        for rows in [[error, &done, &done], [&done, error, &done], [&done, &done, error]] {
            let body = format!(r#"{{"items":[{}]}}"#, rows.join(","));
            assert_eq!(super::items(body.as_bytes(), 3), Some(reply::general(body.as_bytes(), 3).unwrap()));
        }
        for other in [r#"{"items":[]}"#, r#"{"took":1,"items":[]}"#, r#"{"items":[{"index":{"status":201}]}"#]
        {
            assert!(super::items(other.as_bytes(), 1).is_none(), "{other}");
        }
        for count in [1, 3] {
            assert!(super::items(body.as_bytes(), count).is_none());
        }
        assert!(super::items(format!("{body} ").as_bytes(), 2).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// Wherever a byte differs, either both read the same, or it is left to the general reader.
        #[test]
        fn it_never_reads_anything_else_than_the_general_reader(
            results in proptest::collection::vec(
                (0_usize..3, 0_usize..6, 0_i64..i64::MAX, 0_u16..700), 1..4
            ),
            change in proptest::option::of((any::<proptest::sample::Index>(), "[0-9a-z{}\\[\\]\":, -]{0,2}")),
        ) {
            let names = ["created", "updated", "deleted", "not_found", "noop"];
            let rows: Vec<String> = results
                .iter()
                .map(|(verb, result, version, status)| {
                    let verb = ["index", "create", "delete"][*verb];
                    match names.get(*result) {
                        Some(result) => item(verb, result, *version, *status),
                        None => format!(r#"{{"{verb}":{{"error":{{"type":"t"}},"status":{status}}}}}"#),
                    }
                })
                .collect();
            let mut body = format!(r#"{{"items":[{}]}}"#, rows.join(","));
            if let Some((at, with)) = change {
                let at = at.index(body.len());
                body.replace_range(at..=at, &with);
            }
            if let Some(read) = items(body.as_bytes(), rows.len()) {
                prop_assert_eq!(Ok(read), reply::general(body.as_bytes(), rows.len()));
            }
        }
    }
}
