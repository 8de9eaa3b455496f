use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Writes down what it is shown.
#[derive(Debug, Default, PartialEq)]
struct Log(Vec<String>);

impl Visitor for Log {
    fn name(&self, key: &[u8]) -> Name {
        key.first().map_or(0, |byte| byte % 7 + 1)
    }

    fn key(&mut self, path: &[Level], chars: Chars) {
        self.0.push(format!("{path:?} key {chars:?}"));
    }

    fn list(&mut self, path: &[Level]) {
        self.0.push(format!("{path:?} list"));
    }

    fn value(&mut self, path: &[Level], value: Value<'_>) {
        self.0.push(format!("{path:?} {value:?}"));
    }
}

fn read(pieces: &[&[u8]]) -> (Log, bool) {
    let (mut reader, mut log) = (Reader::default(), Log::default());
    for piece in pieces {
        reader.feed(piece, &mut log);
    }
    let over = reader.is_over();
    reader.finish(&mut log);
    (log, over)
}

/// Values of every kind, with strings that need escapes and such that do not.
fn documents() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|bool| json!(bool)),
        any::<i32>().prop_map(|number| json!(number)),
        any::<f64>().prop_filter("JSON has no others", |number| number.is_finite()).prop_map(|n| json!(n)),
        ".{0,12}".prop_map(|text| json!(text)),
        prop_oneof!["[a-z]{250,260}", "[\u{80}-\u{10ffff}]{60,90}"].prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(|items| json!(items)),
            proptest::collection::btree_map("[a-z\u{e9}\"]{0,5}", inner, 0..5).prop_map(|map| json!(map)),
        ]
    })
}

/// What serde makes of the same document, in the same order.
fn expected(value: &serde_json::Value, path: &mut Vec<Level>, log: &mut Vec<String>) {
    let chars = |text: &str| Chars::of(text.as_bytes());
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                log.push(format!("{path:?} key {:?}", chars(key)));
                path.push(Level::Key(if key.len() > 256 { 0 } else { Log::default().name(key.as_bytes()) }));
                expected(value, path, log);
                path.pop();
            }
        }
        serde_json::Value::Array(items) => {
            log.push(format!("{path:?} list"));
            for item in items {
                path.push(Level::Item);
                expected(item, path, log);
                path.pop();
            }
        }
        serde_json::Value::String(text) => {
            let short = Some(text.as_bytes()).filter(|text| text.len() <= 256);
            log.push(format!("{path:?} {:?} {short:?}", chars(text)));
        }
        serde_json::Value::Number(number) => {
            log.push(format!("{path:?} {:?}", Value::Number(number.as_f64().unwrap())));
        }
        serde_json::Value::Bool(bool) => log.push(format!("{path:?} {:?}", Value::Bool(*bool))),
        serde_json::Value::Null => log.push(format!("{path:?} {:?}", Value::Null)),
    }
}

/// Strings without where they stand.
struct Placeless(Vec<String>);

impl Visitor for Placeless {
    fn name(&self, key: &[u8]) -> Name {
        Log::default().name(key)
    }

    fn key(&mut self, path: &[Level], chars: Chars) {
        self.0.push(format!("{path:?} key {chars:?}"));
    }

    fn list(&mut self, path: &[Level]) {
        self.0.push(format!("{path:?} list"));
    }

    fn value(&mut self, path: &[Level], value: Value<'_>) {
        self.0.push(match value {
            Value::Text { chars, short, .. } => format!("{path:?} {chars:?} {short:?}"),
            value => format!("{path:?} {value:?}"),
        });
    }
}

proptest! {
    #[test]
    fn a_document_is_read_as_serde_reads_it(document in documents(), pretty in any::<bool>()) {
        let text = if pretty { format!("{document:#}") } else { document.to_string() };
        let (mut reader, mut log) = (Reader::default(), Placeless(Vec::new()));
        reader.feed(text.as_bytes(), &mut log);
        reader.feed(b"\n", &mut log);
        prop_assert!(reader.is_over());
        let mut want = Vec::new();
        expected(&document, &mut Vec::new(), &mut want);
        prop_assert_eq!(log.0, want);
    }

    #[test]
    fn where_it_is_cut_makes_no_difference(
        document in documents(), escaped in any::<bool>(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut text = document.to_string();
        if escaped {
            // As serializers do that keep to ASCII.
            text = text.encode_utf16().fold(String::new(), |text, unit| match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => text + &char::from(byte).to_string(),
                _ => text + &format!("\\u{unit:04X}"),
            });
        }
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        prop_assert_eq!(read(&pieces), read(&[bytes]));
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(read(&single), read(&[bytes]));
    }

    #[test]
    fn no_bytes_and_no_truncation_break_it(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "[\\[\\]{}\",:\\\\u0-9a-f ]{0,80}".prop_map(String::into_bytes),
            documents().prop_map(|document| document.to_string().into_bytes()),
        ],
        end in any::<prop::sample::Index>(),
    ) {
        read(&[&bytes]);
        read(&[&bytes[..end.index(bytes.len() + 1)]]);
    }
}

#[test]
fn what_is_no_json_or_too_deep_is_given_up_at_once() {
    for (text, lost) in [
        ("}", true),
        ("{\"a\" 1}", true),
        ("{\"a\":1]", true),
        ("{1:2}", true),
        (&"[".repeat(200), true),
        (&"[".repeat(90), false),
        ("{\"a\":[1,2", false),
    ] {
        let mut reader = Reader::default();
        reader.feed(text.as_bytes(), &mut Log::default());
        assert_eq!(reader.is_lost(), lost, "{text}");
    }
}

/// The strings of a document, and where they stand.
#[derive(Debug, Default)]
struct Texts(Vec<(Option<String>, (u64, u64))>);

impl Visitor for Texts {
    fn name(&self, _: &[u8]) -> Name {
        0
    }

    fn value(&mut self, _: &[Level], value: Value<'_>) {
        if let Value::Text { short, at, .. } = value {
            self.0.push((short.map(|text| String::from_utf8(text.to_vec()).unwrap()), at));
        }
    }
}

#[test]
fn a_string_says_where_it_stands() {
    let text = br#"{"a": "x\"y" }"#;
    let mut texts = Texts::default();
    Reader::default().feed(text, &mut texts);
    let (from, to) = texts.0[0].1;
    assert_eq!(&text[from as usize..to as usize], br#""x\"y""#);
}

#[test]
fn halves_of_characters_are_no_characters_and_break_nothing() {
    for (json, text) in [
        (r#""\ud83c\udf0a""#, "\u{1f30a}"),
        (r#""\ud83cx""#, "\u{fffd}x"),
        (r#""\ud83c""#, "\u{fffd}"),
        (r#""\ud83c\ud83c\udf0a""#, "\u{fffd}\u{1f30a}"),
        (r#""\udf0a\n""#, "\u{fffd}\n"),
    ] {
        let mut texts = Texts::default();
        Reader::default().feed(json.as_bytes(), &mut texts);
        assert_eq!(texts.0[0].0.as_deref(), Some(text), "{json}");
    }
}
