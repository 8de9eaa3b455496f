//! The text format of Prometheus, as far as reading single values needs it: one sample a line, labels in braces,
//! the value after them. <https://prometheus.io/docs/instrumenting/exposition_formats/>

/// One line: name, text of the labels without braces, value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    labels: &'a str,
    pub(super) value: f64,
}

/// All samples of an exposition. A line that is none is passed over: what other metrics an engine has is its own
/// affair.
pub(super) fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim_start();
    let end = line.find(['{', ' ', '\t'])?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with('#') {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => {
            let end = closing_brace(rest)?;
            (&rest[..end], &rest[end + 1..])
        }
        None => ("", rest),
    };
    // A timestamp may follow.
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// The brace that ends the labels: one within quotes belongs to a value.
fn closing_brace(labels: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (i, byte) in labels.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(i),
            _ => {}
        }
    }
    None
}

impl<'a> Sample<'a> {
    /// Whether it has this label with this value, which needs no escapes.
    pub(super) fn has(&self, label: &str, value: &str) -> bool {
        self.get(label) == Some(value)
    }

    /// The value of a label, with its escapes.
    pub(super) fn get(&self, label: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        while let Some((name, after)) = rest.split_once("=\"") {
            let end = closing_quote(after);
            if name.trim_start_matches([',', ' ']) == label {
                return Some(&after[..end]);
            }
            rest = after.get(end + 1..).unwrap_or_default();
        }
        None
    }
}

fn closing_quote(value: &str) -> usize {
    let mut escaped = false;
    let end = value.bytes().position(|byte| match byte {
        _ if escaped => {
            escaped = false;
            false
        }
        b'\\' => {
            escaped = true;
            false
        }
        byte => byte == b'"',
    });
    end.unwrap_or(value.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn only(line: &str) -> Sample<'_> {
        let mut found = samples(line);
        let sample = found.next().unwrap();
        assert_eq!(found.next(), None);
        sample
    }

    #[test]
    fn comments_and_lines_that_are_no_samples_are_passed_over() {
        let text = "# HELP a b\n# TYPE a gauge\n\na\na b\na{x=\"1\" 3\n  a 1\na{} +Inf 1700000000\n";
        let values: Vec<_> = samples(text).map(|sample| sample.value).collect();
        assert_eq!(values, [1.0, f64::INFINITY]);
    }

    #[test]
    fn a_brace_or_a_quote_in_a_label_does_not_end_it() {
        let sample = only(r#"m{model="a}\"b",engine="0",} 2.5"#);
        assert_eq!((sample.name, sample.value), ("m", 2.5));
        assert!(sample.has("engine", "0"));
        assert!(!sample.has("model", "a}"));
        assert!(!sample.has("engine", "1"));
        assert!(!sample.has("gine", "0"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail(text in "[a-z{}=\"\\\\ ,0-9\n#]{0,200}") {
            for sample in samples(&text) {
                sample.has("a", "b");
            }
        }
    }
}
