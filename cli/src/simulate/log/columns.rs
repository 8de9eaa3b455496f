//! What the columns of a log mean.

use std::rc::Rc;

use super::time::Unit;

/// A column of a CSV log, or a member of the objects of a JSON log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    /// As the log writes it, in lower case.
    pub(crate) name: Rc<str>,
    pub(crate) meaning: Meaning,
}

/// What a value is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    Time(Option<Unit>),
    PromptTokens,
    CachedTokens,
    OutputTokens,
    Priority,
    Key,
    Method,
    Path,
    Client,
    Status,
    FirstToken(Unit),
    Total(Unit),
    /// The header field of this name, if the policies ask for it.
    Header,
}

/// Columns of a CSV log that begins with data.
const POSITIONS: [&str; 4] = ["time", "prompt_tokens", "output_tokens", "priority"];

impl Column {
    pub(crate) fn named(name: &str) -> Self {
        let name = name.trim().to_ascii_lowercase();
        let meaning = meaning(&name.replace(['-', ' '], "_"));
        Self { name: name.into(), meaning }
    }

    /// The columns of a log whose first line has no names: as many as that line has fields.
    pub(crate) fn by_position(count: usize) -> Vec<Self> {
        POSITIONS.iter().take(count.max(1)).map(|name| Self::named(name)).collect()
    }
}

fn meaning(name: &str) -> Meaning {
    let (stem, unit) = Unit::of_name(name);
    match stem {
        "time" | "timestamp" | "@timestamp" | "ts" | "at" | "date" => return Meaning::Time(unit),
        "ttft" | "time_to_first_token" | "first_token" => {
            return Meaning::FirstToken(unit.unwrap_or(Unit::Seconds));
        }
        "total" | "latency" | "duration" | "request_time" => {
            return Meaning::Total(unit.unwrap_or(Unit::Seconds));
        }
        _ => {}
    }
    match name {
        "prompt_tokens" | "input_tokens" | "context_tokens" | "contexttokens" => Meaning::PromptTokens,
        "output_tokens" | "generated_tokens" | "completion_tokens" | "generatedtokens" => {
            Meaning::OutputTokens
        }
        "cached_tokens" => Meaning::CachedTokens,
        "priority" | "class" => Meaning::Priority,
        "key" | "user" | "tenant" => Meaning::Key,
        "method" | "request_method" => Meaning::Method,
        "path" | "uri" | "request_uri" => Meaning::Path,
        "client" | "client_ip" | "remote_addr" => Meaning::Client,
        "status" => Meaning::Status,
        _ => Meaning::Header,
    }
}

/// The columns that a header line names. Two columns of one meaning, or none with the time, are a mistake.
pub(crate) fn of_header(names: &[String]) -> Result<Vec<Column>, String> {
    if let [only] = names
        && let Some(separator) = only.chars().find(|c| matches!(c, ';' | '\t' | '|'))
    {
        return Err(format!("columns are separated by {separator:?}: separate them by commas"));
    }
    let columns: Vec<_> = names.iter().map(|name| Column::named(name)).collect();
    let same = |a: &Column, b: &Column| {
        let kind = |column: &Column| std::mem::discriminant(&column.meaning);
        a.name == b.name || (kind(a) == kind(b) && a.meaning != Meaning::Header)
    };
    for (i, column) in columns.iter().enumerate() {
        if let Some(other) = columns[..i].iter().find(|other| same(other, column)) {
            return Err(format!(
                "columns {:?} and {:?} say the same: leave one out",
                other.name, column.name
            ));
        }
    }
    if !columns.iter().any(|column| matches!(column.meaning, Meaning::Time(_))) {
        return Err("no column of times: name one \"time\"".to_owned());
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_well_known_logs_are_understood() {
        for (name, meaning) in [
            ("TIMESTAMP", Meaning::Time(None)),
            ("timestamp_seconds", Meaning::Time(Some(Unit::Seconds))),
            ("ContextTokens", Meaning::PromptTokens),
            ("GeneratedTokens", Meaning::OutputTokens),
            ("ttft_ms", Meaning::FirstToken(Unit::Millis)),
            ("request_time", Meaning::Total(Unit::Seconds)),
            ("remote_addr", Meaning::Client),
            ("X-Api-Key", Meaning::Header),
        ] {
            assert_eq!(Column::named(name).meaning, meaning, "{name}");
        }
        assert_eq!(&*Column::named("X-Api-Key").name, "x-api-key");
    }

    #[test]
    fn a_header_line_that_cannot_be_meant_is_refused() {
        let refused = |names: &[&str]| {
            of_header(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap_err()
        };
        assert!(refused(&["time", "ts"]).contains("leave one out"));
        assert!(refused(&["time", "x-a", "X-A"]).contains("leave one out"));
        for line in ["time;prompt_tokens", "time\tprompt_tokens"] {
            assert!(refused(&[line]).ends_with("separate them by commas"));
        }
        assert!(refused(&["key", "path"]).contains("name one \"time\""));
    }
}
