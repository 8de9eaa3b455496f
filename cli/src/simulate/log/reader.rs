//! From a line to a request, in either form of a log.

use std::fs::File;
use std::io;

use k8s_openapi::jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::columns::{self, Column};
use super::line::{Line, Lines, fields};
use super::request::{Draft, Request};
use super::time::Way;

const FORM: &str = "write time,prompt_tokens,output_tokens, or name the columns in the first line";

/// Knows the form of a log.
#[derive(Debug)]
pub(crate) struct Reader {
    form: Form,
    zone: TimeZone,
}

#[derive(Debug)]
enum Form {
    Csv {
        columns: Vec<Column>,
        /// The first line names them.
        named: bool,
    },
    Json,
}

/// What a line says.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) way: Way,
    pub(crate) nanos: i128,
    pub(crate) request: Request,
}

impl Reader {
    /// Finds the form out by the first line. The inner error is about that line.
    pub(crate) fn of(file: &File, zone: TimeZone) -> io::Result<Result<Self, String>> {
        let Some(first) = Lines::of(file)?.next_line()? else {
            return Ok(Err(format!("no requests: {FORM}")));
        };
        let form = first.text.map_err(str::to_owned).and_then(|text| Form::of(&text));
        let named = form.map(|form| Self { form, zone });
        Ok(named.map_err(|message| format!("line {}: {message}", first.number)))
    }

    /// The first line that can be a request.
    pub(crate) fn lines(&self, file: &File) -> io::Result<Lines> {
        let mut lines = Lines::of(file)?;
        if matches!(self.form, Form::Csv { named: true, .. }) {
            lines.next_line()?;
        }
        Ok(lines)
    }

    /// The request of a line, or everything that is wrong with it.
    pub(crate) fn entry(&self, line: &Line) -> Result<Entry, String> {
        let text = line.text.as_ref().map_err(|message| (*message).to_owned())?;
        let mut draft = Draft::new(&self.zone);
        match &self.form {
            Form::Csv { columns, named } => {
                let fields = csv(text, columns.len(), *named)?;
                for (column, value) in columns.iter().zip(&fields) {
                    draft.set(column, value);
                }
            }
            Form::Json => {
                let object: Map<String, Value> = serde_json::from_str(text)
                    .map_err(|error| format!("not a JSON object ({error}): write one object per line"))?;
                members(&object, &mut draft);
            }
        }
        let (way, nanos, request) = draft.finish()?;
        Ok(Entry { way, nanos, request })
    }
}

impl Form {
    fn of(first: &str) -> Result<Self, String> {
        if first.starts_with('{') {
            return Ok(Self::Json);
        }
        // A date of a web server's log begins with a bracket too.
        if first == "[" || first.starts_with("[{") || first.starts_with("[]") {
            return Err("a JSON array: write one object per line, as \"jq -c .[]\" does".to_owned());
        }
        let fields = fields(first).ok_or_else(|| format!("{first:?}: a quote is not closed"))?;
        let named = !fields[0].starts_with(|c: char| c.is_ascii_digit() || c == '[');
        let columns = if named { columns::of_header(&fields)? } else { Column::by_position(fields.len()) };
        Ok(Self::Csv { columns, named })
    }
}

/// As many fields as there are columns. Without names the last columns may be missing.
fn csv(text: &str, columns: usize, named: bool) -> Result<Vec<String>, String> {
    let fields = fields(text).ok_or_else(|| format!("{text:?}: close the quote"))?;
    match fields.len() {
        count if count == columns => Ok(fields),
        count if named => Err(format!("{text:?}: {count} fields, not {columns}: write one for each column")),
        _ => Err(format!("{text:?}: {FORM}")),
    }
}

/// Members of an object, and those of its `headers`.
fn members(object: &Map<String, Value>, draft: &mut Draft<'_>) {
    for (name, value) in object {
        match value {
            Value::Object(headers) if name == "headers" => members(headers, draft),
            Value::String(text) => draft.set(&Column::named(name), text),
            Value::Number(_) | Value::Bool(_) => draft.set(&Column::named(name), &value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => {}
        }
    }
}
