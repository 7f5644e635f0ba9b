//! Bodies that are almost bulks: made as clients make them, then changed in the places that parsers get wrong.

use searchcell_workbench::random::Random;

const KEYS: [&str; 20] = [
    "_id",
    "_id",
    "_id",
    "routing",
    "routing",
    "routing",
    "_index",
    "version",
    "version_type",
    "_routing",
    "_version",
    "if_seq_no",
    "if_primary_term",
    "pipeline",
    "require_alias",
    "dynamic_templates",
    "retry_on_conflict",
    "_source",
    "_parent",
    "require_data_stream",
];
const VALUES: [&str; 34] = [
    "\"1\"",
    "\"a\"",
    "\"tenant\"",
    "7",
    "\"\"",
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-1",
    "1.0",
    "1e3",
    "01",
    "+1",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345678901234567890",
    "1E400",
    "{}",
    "[]",
    "[1,{}]",
    "\"\\u00e9\"",
    "\"\\ud83d\\ude42\"",
    "\"\\ud83d\"",
    "\"\u{e9}\u{1f642}\"",
    "\"a\\\"b\\\\c\\/\\n\"",
    "\"external\"",
    "\"messages\"",
    "\"a~b%c\"",
];
const VERBS: [&str; 10] =
    ["index", "index", "index", "create", "delete", "update", "Index", "upsert", "", "in\\u0064ex"];
const PIECES: [&[u8]; 24] = [
    b"\n",
    b"\r\n",
    b"\r",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\0",
    b" ",
    b"\t",
    b"\x0c",
    b"\"",
    b"\\",
    b"\\u",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n\n",
    b"{}",
    b"null",
    b"\xe2\x80\xa8",
];

/// The input of a number.
pub fn input(number: u64) -> Vec<u8> {
    let mut random = Random::new(number.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5ea7);
    let mut body = Vec::new();
    for _ in 0..1 + random.below(5) {
        operation(&mut random, &mut body);
    }
    // Many stay as they are, so that what follows a mistake is looked at, too.
    let changes = match random.below(10) {
        0..4 => 0,
        4..8 => 1,
        _ => 1 + random.below(6),
    };
    for _ in 0..changes {
        change(&mut random, &mut body);
    }
    body
}

fn operation(random: &mut Random, body: &mut Vec<u8>) {
    // Mostly well formed: otherwise the first operation would decide about every body.
    let wild = random.chance(0.12);
    let verb = random.pick(&VERBS[..if wild { VERBS.len() } else { 6 }]);
    let mut text =
        format!("{{{}\"{verb}\"{}:{}{{", space(random, wild), space(random, wild), space(random, wild));
    let count = random.below(5);
    let mut used: Vec<&str> = Vec::new();
    for _ in 0..count {
        let key = random.pick(&KEYS[..if wild { KEYS.len() } else { 7 }]);
        if !wild && used.contains(&key) {
            continue;
        }
        if !used.is_empty() {
            text.push(',');
        }
        used.push(key);
        let value = random.pick(&VALUES[..if wild { VALUES.len() } else { 5 }]);
        let key = if random.chance(0.05) { escaped(random, key) } else { key.to_owned() };
        text.push_str(&format!("\"{key}\"{}:{}{value}", space(random, wild), space(random, wild)));
    }
    if wild && random.chance(0.1) {
        nested(random, &mut text, "_source");
    }
    text.push_str("}}");
    body.extend_from_slice(text.as_bytes());
    end(random, body);
    if verb != "delete" || (wild && random.chance(0.2)) {
        document(random, body);
        end(random, body);
    }
}

fn end(random: &mut Random, body: &mut Vec<u8>) {
    let end: &[u8] = match random.below(40) {
        0 => b"\r\n",
        1 => b"\n\n",
        2 => b"\n \r\n",
        _ => b"\n",
    };
    body.extend_from_slice(end);
}

fn space(random: &mut Random, wild: bool) -> &'static str {
    if wild && random.chance(0.2) { random.pick(&[" ", "  ", "\t", "\r", " \t ", "\n"]) } else { "" }
}

/// A key in which one character is written as its number.
fn escaped(random: &mut Random, key: &str) -> String {
    let at = usize::try_from(random.below(key.len() as u64)).unwrap();
    let (before, after) = key.split_at(at);
    let mut after = after.chars();
    let one = after.next().map_or(0, u32::from);
    let digits = if random.chance(0.5) { format!("{one:04x}") } else { format!("{one:04X}") };
    format!("{before}\\u{digits}{}", after.as_str())
}

fn nested(random: &mut Random, text: &mut String, key: &str) {
    let depth = usize::try_from(1 + random.below(300)).unwrap();
    if !text.ends_with('{') {
        text.push(',');
    }
    let (open, close) = if random.chance(0.5) { ("[", "]") } else { ("{\"a\":", "}") };
    text.push_str(&format!("\"{key}\":{}1{}", open.repeat(depth), close.repeat(depth)));
}

fn document(random: &mut Random, body: &mut Vec<u8>) {
    match random.below(20) {
        0 => return,
        1 => {
            return body.extend_from_slice(random.pick(&[&b"[]"[..], b"null", b"\"x\"", b" ", b"{", b"{}}"]));
        }
        _ => {}
    }
    let mut text = String::from("{");
    for position in 0..random.below(6) {
        if position > 0 {
            text.push(',');
        }
        let key = random.pick(&["guild_id", "content", "a", "guild_id2", "é"]);
        let key = if random.chance(0.05) && key.is_ascii() { escaped(random, key) } else { key.to_owned() };
        let value = random.pick(&VALUES);
        text.push_str(&format!("{}\"{key}\":{value}", space(random, position == 3)));
    }
    if random.chance(0.02) {
        nested(random, &mut text, "deep");
    }
    text.push('}');
    if random.chance(0.02) {
        // As somebody writes it by hand: then it is no line any more.
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
            text = serde_json::to_string_pretty(&value).unwrap();
        }
    }
    body.extend_from_slice(text.as_bytes());
}

fn change(random: &mut Random, body: &mut Vec<u8>) {
    let at = |random: &mut Random, body: &[u8]| usize::try_from(random.below(body.len() as u64 + 1)).unwrap();
    let position = at(random, body);
    match random.below(9) {
        0 => body.truncate(position),
        1 => {
            body.pop();
        }
        2 | 3 => {
            let piece = random.pick(&PIECES);
            body.splice(position..position, piece.iter().copied());
        }
        4 => {
            if let Some(byte) = body.get_mut(position) {
                *byte ^= 1 << random.below(8);
            }
        }
        5 => {
            let end = (position + usize::try_from(random.below(8)).unwrap()).min(body.len());
            body.drain(position..end);
        }
        6 => {
            // A piece of it once more, somewhere else.
            let end = (position + usize::try_from(random.below(40)).unwrap()).min(body.len());
            let piece = body[position..end].to_vec();
            let to = at(random, body);
            body.splice(to..to, piece);
        }
        7 => {
            let piece = random.pick(&PIECES);
            let from = at(random, body);
            let end = (from + piece.len()).min(body.len());
            body.splice(from..end, piece.iter().copied());
        }
        _ => body.splice(0..0, b"\xef\xbb\xbf".iter().copied()).for_each(drop),
    }
}
