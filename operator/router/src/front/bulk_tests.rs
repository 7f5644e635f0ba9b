//! Tests of the parser of bulks, among them its agreement with a parser that copies everything.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn word(text: &str) -> Option<Word<'_>> {
    Some(Word(Cow::Borrowed(text)))
}

#[test]
fn what_clients_send() {
    let body = b"{\"index\":{\"_index\":\"messages\",\"_id\":\"1\",\"routing\":\"g\",\"version\":7,\"version_type\":\"external\"}}\n\
        {\"a\":1}\r\n\n  \r\n{ \"delete\" : {\"_id\": 5, \"routing\": 6} }\r\n{\"create\":{}}\n\n{\"update\":{\"_id\":\"x\",\"retry_on_conflict\":3}}\n{\"doc\":{}}\n";
    let actions = parse(body).unwrap();
    assert_eq!(actions.len(), 4);
    let first = &actions[0];
    assert_eq!((first.verb, first.document), (Verb::Index, Some(&b"{\"a\":1}"[..])));
    assert_eq!((&first.meta.index, first.meta.version), (&word("messages"), Some(7)));
    assert_eq!((&actions[1].meta.id, &actions[1].meta.routing), (&word("5"), &word("6")));
    assert_eq!(actions[1].document, None);
    assert_eq!(
        (actions[2].verb, actions[2].document),
        (Verb::Create, Some(&b""[..])),
        "an empty document is its own"
    );
    assert_eq!(actions[3].meta.retry_on_conflict, Some(Present));
}

#[test]
fn documents_stay_where_they_are() {
    let body = b"{\"index\":{\"_id\":\"1\"}}\n{\"a\":1}\n".to_vec();
    let document = parse(&body).unwrap()[0].document.unwrap();
    assert!(body.as_ptr_range().contains(&document.as_ptr()));
}

#[test]
fn what_is_no_bulk_is_refused_whole() {
    let refused = |body: &[u8]| parse(body).unwrap_err();
    assert_eq!(refused(b""), BulkError::Empty);
    assert_eq!(refused(b" \n\r\n"), BulkError::Empty);
    assert_eq!(refused(b"{\"index\":{}}\n{}"), BulkError::Unterminated);
    assert_eq!(refused(b"{\"delete\":{\"_id\":1}}\n{\"index\":{}}\n"), BulkError::NoDocument { line: 2 });
    let lines: [&[u8]; 10] = [
        b"{\"index\":{}}\xef\xbb\xbf",
        b"\xef\xbb\xbf{\"delete\":{}}",
        b"{\"index\":{},\"create\":{}}",
        b"{\"index\":null}",
        b"{\"index\":[]}",
        b"{\"upsert\":{}}",
        b"{\"delete\":{\"_id\":\"\xff\"}}",
        b"{\"delete\":{\"_id\":{}}}",
        b"{\"delete\":{\"_id\":1,\"_id\":2}}",
        b"{",
    ];
    for line in lines {
        let body = [line, b"\n{}\n"].concat();
        assert!(matches!(refused(&body), BulkError::Action { line: 1, .. }), "{:?}", refused(&body));
    }
    let unknown = refused(b"{\"delete\":{\"_parent\":\"x\"}}\n").to_string();
    assert!(unknown.contains("line [1]") && unknown.contains("`_parent`"), "{unknown}");
}

#[test]
fn fields_of_documents() {
    let get = |document: &str, name: &str| {
        field(document.as_bytes(), name)
            .map(|raw| raw.map(|raw| raw.get().to_owned()))
            .map_err(|e| e.to_string())
    };
    assert_eq!(get(r#"{"a":{"g":1},"g": 12 ,"b":[]}"#, "g"), Ok(Some("12".into())));
    assert_eq!(get(r#"{"g\u0075ild":"x\"y"}"#, "guild"), Ok(Some(r#""x\"y""#.into())));
    assert_eq!(get(r#"{"a":{"g":1}}"#, "g"), Ok(None));
    assert!(get(r#"{"g":1,"\u0067":2}"#, "g").unwrap_err().contains("twice"));
    for broken in ["", "[]", "{", r#"{"g":1}}"#, r#"{"g":1"#, "null", r#"{"g":}"#] {
        assert!(get(broken, "g").is_err(), "{broken}");
    }
}

/// Verb, the rest of the action line, document.
type Copied = (String, Value, Option<Vec<u8>>);

/// What a bulk is, said once more, by splitting a string and copying every value.
fn reference(body: &[u8]) -> Option<Vec<Copied>> {
    let lines: Vec<&[u8]> = body.strip_suffix(b"\n")?.split(|byte| *byte == b'\n').collect();
    let lines: Vec<&[u8]> = lines.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    let mut actions = Vec::new();
    let mut position = 0;
    while position < lines.len() {
        let line = lines[position];
        position += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let value: Value = serde_json::from_slice(line).ok()?;
        let object = value.as_object().filter(|object| object.len() == 1)?;
        let (verb, meta) = object.iter().next()?;
        let known = ["_index", "_id", "routing", "version"];
        if !["index", "create", "delete", "update"].contains(&verb.as_str())
            || !meta.as_object()?.keys().all(|key| known.contains(&key.as_str()))
        {
            return None;
        }
        for (key, value) in meta.as_object()? {
            let fine = if key == "version" {
                value.as_i64().is_some() || value.is_null()
            } else {
                value.is_string() || value.is_i64() || value.is_u64() || value.is_null()
            };
            if !fine {
                return None;
            }
        }
        let document = if verb == "delete" {
            None
        } else {
            let document = lines.get(position)?.to_vec();
            position += 1;
            Some(document)
        };
        actions.push((verb.clone(), meta.clone(), document));
    }
    Some(actions).filter(|actions| !actions.is_empty())
}

fn agree(body: &[u8]) {
    let text = |word: &Option<Word<'_>>| word.as_ref().map(|word| word.0.to_string());
    let expected = |meta: &Value, key: &str| match &meta[key] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    match (parse(body), reference(body)) {
        (Ok(actions), Some(reference)) => {
            assert_eq!(actions.len(), reference.len());
            for (action, (verb, meta, document)) in actions.iter().zip(&reference) {
                assert_eq!(action.verb.name(), verb);
                assert_eq!(action.document, document.as_deref());
                assert_eq!(text(&action.meta.id), expected(meta, "_id"));
                assert_eq!(text(&action.meta.index), expected(meta, "_index"));
                assert_eq!(text(&action.meta.routing), expected(meta, "routing"));
                assert_eq!(action.meta.version, meta["version"].as_i64());
            }
        }
        (Err(_), None) => {}
        (ours, reference) => panic!("{:?}: {ours:?}, {reference:?}", String::from_utf8_lossy(body)),
    }
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let fixed = |text: &'static str| Just(text.as_bytes().to_vec()).boxed();
    prop_oneof![
        fixed("\n"),
        fixed("\n"),
        fixed("\r\n"),
        fixed("{}"),
        fixed(" "),
        fixed("{\"index\":{\"_id\":\"1\",\"routing\":7}}"),
        fixed("{\"index\":{}}\n{\"a\":1}\n"),
        fixed("{\"delete\":{\"_id\":\"\\u00e9\",\"version\":-3}}\n"),
        fixed("{\"create\":{\"_index\":\"x\"}}"),
        fixed("{\"update\":{}}"),
        fixed("{\"index\":{\"_id\":null}}"),
        fixed("{\"delete\":{\"version\":1.5}}\n"),
        fixed("\""),
        fixed("{"),
        fixed("\u{feff}"),
        fixed("é"),
        fixed("\\"),
        proptest::collection::vec(any::<u8>(), 0..4).boxed(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_reference(pieces in proptest::collection::vec(piece(), 0..12)) {
        agree(&pieces.concat());
    }
}
