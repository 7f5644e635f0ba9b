//! Reads the body of a `_bulk` request in place: documents are not copied, and not looked into. Pure.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// What is to be done with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Write it, whether there is one or not.
    Index,
    /// Write it unless there is one.
    Create,
    /// Delete it.
    Delete,
    /// Change parts of it: understood, to be refused by name.
    Update,
}

impl Verb {
    /// As in an action line.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Index => "index",
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::Update => "update",
        }
    }
}

/// One operation.
#[derive(Debug, PartialEq)]
pub struct Action<'a> {
    /// What is to be done.
    pub verb: Verb,
    /// The rest of its action line.
    pub meta: Meta<'a>,
    /// Its document, without the line's end; none for a delete.
    pub document: Option<&'a [u8]>,
}

/// What an action line may say.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta<'a> {
    /// Where to; absent: what the path says.
    #[serde(default, borrow, rename = "_index")]
    pub index: Option<Word<'a>>,
    /// Id of the document.
    #[serde(default, borrow, rename = "_id")]
    pub id: Option<Word<'a>>,
    /// Tenant.
    #[serde(default, borrow, alias = "_routing")]
    pub routing: Option<Word<'a>>,
    /// Version from the source of truth.
    #[serde(default, alias = "_version")]
    pub version: Option<i64>,
    /// How versions are compared.
    #[serde(default, borrow, alias = "_version_type")]
    pub version_type: Option<Word<'a>>,
    /// Condition: the sequence number that the document has.
    #[serde(default)]
    pub if_seq_no: Option<i64>,
    /// Condition: the term of that number.
    #[serde(default)]
    pub if_primary_term: Option<i64>,
    /// Refused by name.
    #[serde(default, borrow)]
    pub pipeline: Option<Word<'a>>,
    /// Refused by name, when true.
    #[serde(default)]
    pub require_alias: Option<bool>,
    /// Refused by name, when true.
    #[serde(default)]
    pub require_data_stream: Option<bool>,
    /// Refused by name.
    #[serde(default)]
    pub dynamic_templates: Option<Present>,
    /// Only for updates, which are refused.
    #[serde(default)]
    pub retry_on_conflict: Option<Present>,
    /// Only for updates, which are refused.
    #[serde(default, rename = "_source")]
    pub source: Option<Present>,
}

/// That something was said, whatever it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present;

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Present)
    }
}

/// A string, or a number or boolean that is read as its text, as Elasticsearch does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Word<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Word<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an integer")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Word(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Word(Cow::Owned(text.to_owned())))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Word(Cow::Owned(number.to_string())))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Word(Cow::Owned(number.to_string())))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    #[serde(borrow)]
    Index(Object<'a>),
    #[serde(borrow)]
    Create(Object<'a>),
    #[serde(borrow)]
    Delete(Object<'a>),
    #[serde(borrow)]
    Update(Object<'a>),
}

/// Written as an object: a list of the values would be taken too.
struct Object<'a>(Meta<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Objects;
        impl<'de> Visitor<'de> for Objects {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Meta::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Objects)
    }
}

/// Why a body is no bulk. Nothing of it is carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BulkError {
    /// There is nothing in it.
    #[error("request body is required")]
    Empty,
    /// Its last line has no end: it may have been cut off.
    #[error("The bulk request must be terminated by a newline [\\n]")]
    Unterminated,
    /// A line that should say what to do does not.
    #[error("Malformed action/metadata line [{line}]: {error}")]
    Action {
        /// Its number, from 1.
        line: usize,
        /// Why.
        error: String,
    },
    /// An action that needs a document is the last line.
    #[error("Malformed action/metadata line [{line}]: its document is missing")]
    NoDocument {
        /// Its number, from 1.
        line: usize,
    },
}

/// The operations of a body, in order.
pub fn parse(body: &[u8]) -> Result<Vec<Action<'_>>, BulkError> {
    read(body)?.collect()
}

/// The same, to be read one by one.
pub fn read(body: &[u8]) -> Result<Operations<'_>, BulkError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(BulkError::Empty);
    }
    if body.last() != Some(&b'\n') {
        return Err(BulkError::Unterminated);
    }
    Ok(Operations::Bulk(Lines { rest: body, number: 0 }))
}

/// Operations, each read when it is asked for. After an error nothing of them may be carried out.
pub enum Operations<'a> {
    /// Those of a bulk.
    Bulk(Lines<'a>),
    /// One that comes by itself.
    One(Option<Action<'a>>),
}

impl<'a> Operations<'a> {
    /// About how many there are: a guess from lines that are like most.
    pub fn guess(&self) -> usize {
        match self {
            Self::Bulk(lines) => (lines.rest.len() / 512).min(4_096),
            Self::One(_) => 1,
        }
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Result<Action<'a>, BulkError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Bulk(lines) => lines.operation().transpose(),
            Self::One(action) => action.take().map(Ok),
        }
    }
}

/// What is wrong, without where: the line is named already.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split_once(" at line ").map_or(text.clone(), |(what, _)| what.to_owned())
}

/// The lines of a bulk that are not read yet.
pub struct Lines<'a> {
    rest: &'a [u8],
    number: usize,
}

impl<'a> Lines<'a> {
    /// The next line without its end.
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr(b'\n', self.rest)?;
        let (line, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.get(1..).unwrap_or_default();
        self.number += 1;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    fn operation(&mut self) -> Result<Option<Action<'a>>, BulkError> {
        let mut next = self.next();
        // Empty lines between operations are none.
        while next.is_some_and(|line| line.iter().all(u8::is_ascii_whitespace)) {
            next = self.next();
        }
        let Some(line) = next else { return Ok(None) };
        let number = self.number;
        // Checked once, also where nothing of it is kept: Elasticsearch refuses what is not text.
        let text = std::str::from_utf8(line)
            .map_err(|_| BulkError::Action { line: number, error: "it is not UTF-8".to_owned() })?;
        let action: Line<'_> = serde_json::from_str(text)
            .map_err(|error| BulkError::Action { line: number, error: without_position(&error) })?;
        let (verb, meta) = match action {
            Line::Index(Object(meta)) => (Verb::Index, meta),
            Line::Create(Object(meta)) => (Verb::Create, meta),
            Line::Delete(Object(meta)) => (Verb::Delete, meta),
            Line::Update(Object(meta)) => (Verb::Update, meta),
        };
        let document = match verb {
            Verb::Delete => None,
            _ => Some(self.next().ok_or(BulkError::NoDocument { line: number })?),
        };
        Ok(Some(Action { verb, meta, document }))
    }
}

/// The value of a top-level field of a document, as it is written there; absent: it has none. The document is read to
/// its end, so that one that is no JSON object, or has the field twice, is told from one without it.
pub fn field<'a>(
    document: &'a [u8],
    name: &str,
) -> Result<Option<&'a serde_json::value::RawValue>, serde_json::Error> {
    struct Key<'n>(&'n str);
    impl<'de> DeserializeSeed<'de> for Key<'_> {
        type Value = bool;
        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
            deserializer.deserialize_str(self)
        }
    }
    impl Visitor<'_> for Key<'_> {
        type Value = bool;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a key")
        }
        fn visit_str<E>(self, key: &str) -> Result<bool, E> {
            Ok(key == self.0)
        }
    }
    struct Fields<'n>(&'n str);
    impl<'de> Visitor<'de> for Fields<'_> {
        type Value = Option<&'de serde_json::value::RawValue>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(is_it) = map.next_key_seed(Key(self.0))? {
                if !is_it {
                    map.next_value::<IgnoredAny>()?;
                } else if found.is_some() {
                    return Err(A::Error::custom(format!("the field [{}] is there twice", self.0)));
                } else {
                    found = Some(map.next_value()?);
                }
            }
            Ok(found)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(document);
    let found = deserializer.deserialize_map(Fields(name))?;
    deserializer.end()?;
    Ok(found)
}

#[cfg(test)]
#[path = "bulk_tests.rs"]
mod tests;
