//! Parameters of a request's address: those that are known, and the others by name. Pure.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::error::Failure;
use crate::settings::parse_time;

/// Understood in every request.
const COMMON: [&str; 5] = ["pretty", "human", "error_trace", "filter_path", "format"];

/// Parameters of a request.
#[derive(Debug, Default)]
pub struct Params {
    path: String,
    pairs: Vec<(String, String)>,
}

impl Params {
    /// Of a path with this query.
    pub fn new(path: &str, query: Option<&str>) -> Result<Self, Failure> {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            let decoded = percent_decode_str(&text).decode_utf8().map(|text| text.into_owned());
            decoded.map_err(|_| Failure::illegal("parameters must be UTF-8"))
        };
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            // What is there twice could be read as either by whoever looks next.
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(Failure::illegal(format!("parameter [{name}] is there twice")));
            }
            pairs.push((name, decode(value)?));
        }
        Ok(Self { path: path.to_owned(), pairs })
    }

    /// A parameter's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is true where it is there without a value.
    pub fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(other) => {
                let reason =
                    format!("Failed to parse value [{other}] as only [true] or [false] are allowed.");
                Err(Failure::illegal(reason))
            }
        }
    }

    /// A parameter that is a number.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Failure> {
        let parse = |text: &str| {
            let wrong =
                || Failure::illegal(format!("Failed to parse long parameter [{name}] with value [{text}]"));
            text.parse().map_err(|_| wrong())
        };
        self.get(name).map(parse).transpose()
    }

    /// A parameter that is a time.
    pub fn time(&self, name: &str) -> Result<Option<Duration>, Failure> {
        let parse = |text: &str| {
            let wrong = || {
                Failure::illegal(format!(
                    "failed to parse setting [{name}] with value [{text}] as a time value"
                ))
            };
            parse_time(text).ok_or_else(wrong)
        };
        self.get(name).map(parse).transpose()
    }

    /// Refuses all but the common ones and these. Of those that Elasticsearch has and the router has not, `refused`,
    /// it says so.
    pub fn only(&self, known: &[&str], refused: &[&str]) -> Result<(), Failure> {
        for (name, _) in &self.pairs {
            let name = name.as_str();
            if refused.contains(&name) {
                return Err(Failure::unsupported(name));
            }
            if !known.contains(&name) && !COMMON.contains(&name) {
                return Err(Failure::parameter(&self.path, name));
            }
        }
        match self.get("format") {
            None | Some("json") => Ok(()),
            Some(_) => Err(Failure::unsupported("format")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_the_unknown_are_named() {
        let params = Params::new("/_bulk", Some("routing=a%2Fb+c&pretty&timeout=5s&n=7")).unwrap();
        assert_eq!(params.get("routing"), Some("a/b c"));
        assert!(params.flag("pretty").unwrap() && !params.flag("human").unwrap());
        assert_eq!(params.time("timeout").unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(params.number("n").unwrap(), Some(7));
        assert!(params.time("routing").is_err() && params.number("routing").is_err());
        assert!(params.flag("routing").is_err());
        assert!(params.only(&["routing", "timeout", "n"], &[]).is_ok());
        assert!(params.only(&["routing", "timeout"], &[]).unwrap_err().reason.contains("[n]"));
        assert!(params.only(&["routing", "n"], &["timeout"]).unwrap_err().reason.contains("not supported"));
        assert!(Params::new("/", Some("a=1&%61=2")).is_err());
        assert!(Params::new("/", Some("a=%ff")).is_err());
        assert!(Params::new("/", Some("format=yaml")).unwrap().only(&[], &[]).is_err());
    }
}
