//! Finds every mistake of a document that does not parse.
//!
//! A parser stops at its first mistake. Here the mistake is noted, something that parses is put in its place, and the
//! parser runs again, until it comes through; then the rules that no type states are asked too. What they say of an
//! object that holds something put there is dropped: it would be about a value that nobody wrote.

use serde_json::{Value, json};

use crate::PolicyDocument;
use crate::errors::DocumentError;

/// Mistakes that are looked for one after another, each by parsing the document some times.
const MOST: usize = 32;

/// One step of a path.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Item(usize),
}

/// What the parser says, and where.
struct Complaint {
    path: Vec<Step>,
    message: String,
}

/// All mistakes of a document that is JSON; none, when it parses and is valid.
pub(crate) fn mistakes(mut document: Value) -> Vec<DocumentError> {
    let mut errors = Vec::new();
    let mut changed = Vec::new();
    for _ in 0..MOST {
        match parse(&document) {
            Ok(parsed) => {
                let invalid = parsed.validate().err().map(|errors| errors.as_slice().to_vec());
                let about_a_stand_in =
                    |error: &DocumentError| changed.iter().any(|at: &String| error.path().starts_with(at));
                errors.extend(invalid.into_iter().flatten().filter(|error| !about_a_stand_in(error)));
                return errors;
            }
            Err(complaint) => {
                let (path, message) = told(&complaint);
                errors.push(DocumentError::at(shown(&path), message));
                match repair(&mut document, &complaint, &path) {
                    Some(Repair::LeftOut) => {}
                    Some(Repair::StandIn(at)) => changed.push(shown(around(&at))),
                    None => return errors,
                }
            }
        }
    }
    errors
}

/// What was done about a mistake.
enum Repair {
    /// It was a field that does not exist.
    LeftOut,
    /// Something else stands at this path now, or nothing.
    StandIn(Vec<Step>),
}

fn parse(document: &Value) -> Result<PolicyDocument, Complaint> {
    serde_path_to_error::deserialize(document).map_err(|error| Complaint {
        path: error.path().iter().filter_map(step).collect(),
        message: error.inner().to_string(),
    })
}

fn step(segment: &serde_path_to_error::Segment) -> Option<Step> {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => Some(Step::Item(*index)),
        Segment::Map { key } | Segment::Enum { variant: key } => Some(Step::Field(key.clone())),
        Segment::Unknown => None,
    }
}

/// The path and the message as they are told: a field that is missing stands where it should.
fn told(complaint: &Complaint) -> (Vec<Step>, String) {
    let mut path = complaint.path.clone();
    match missing(&complaint.message) {
        Some(field) => {
            path.push(Step::Field(field.to_owned()));
            (path, "missing: write it".to_owned())
        }
        None => (path, complaint.message.clone()),
    }
}

fn missing(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
}

/// Makes the complaint go away: by leaving out what is unknown, by something that parses, or by leaving out ever more
/// around it.
fn repair(document: &mut Value, complaint: &Complaint, path: &[Step]) -> Option<Repair> {
    if complaint.message.starts_with("unknown field") {
        remove(document, path)?;
        return Some(Repair::LeftOut);
    }
    for stand_in in stand_ins(&complaint.message) {
        let mut tried = document.clone();
        put(&mut tried, path, stand_in)?;
        if goes_on(&tried, path) {
            *document = tried;
            return Some(Repair::StandIn(path.to_vec()));
        }
    }
    for length in (1..=path.len()).rev() {
        let mut tried = document.clone();
        if remove(&mut tried, &path[..length]).is_some() && goes_on(&tried, &path[..length]) {
            *document = tried;
            return Some(Repair::StandIn(path[..length].to_vec()));
        }
    }
    None
}

/// Whether the parser no longer complains about what is at the path.
fn goes_on(document: &Value, path: &[Step]) -> bool {
    parse(document).err().is_none_or(|complaint| !told(&complaint).0.starts_with(path))
}

/// Values of every form that a document has; first the one that the message names.
fn stand_ins(message: &str) -> Vec<Value> {
    let named = message.split_once("expected").and_then(|(_, expected)| expected.split('`').nth(1));
    let forms = [json!(1), json!(0.5), json!("x"), json!("/x"), json!("5xx"), json!([]), json!({})];
    named.map(Value::from).into_iter().chain(forms).collect()
}

fn put(document: &mut Value, path: &[Step], value: Value) -> Option<()> {
    let (last, parents) = path.split_last()?;
    match (parents.iter().try_fold(document, enter)?, last) {
        (Value::Object(fields), Step::Field(name)) => {
            fields.insert(name.clone(), value);
            Some(())
        }
        (Value::Array(items), Step::Item(index)) => items.get_mut(*index).map(|item| *item = value),
        _ => None,
    }
}

fn remove(document: &mut Value, path: &[Step]) -> Option<()> {
    let (last, parents) = path.split_last()?;
    match (parents.iter().try_fold(document, enter)?, last) {
        (Value::Object(fields), Step::Field(name)) => fields.remove(name).map(drop),
        (Value::Array(items), Step::Item(index)) if *index < items.len() => {
            items.remove(*index);
            Some(())
        }
        _ => None,
    }
}

fn enter<'a>(value: &'a mut Value, step: &Step) -> Option<&'a mut Value> {
    match step {
        Step::Field(name) => value.get_mut(name.as_str()),
        Step::Item(index) => value.get_mut(index),
    }
}

/// The object around a path; of a field of the document itself the field.
fn around(path: &[Step]) -> &[Step] {
    if path.len() > 1 { &path[..path.len() - 1] } else { path }
}

fn shown(path: &[Step]) -> String {
    path.iter().fold(String::new(), |text, step| match step {
        Step::Field(name) if text.is_empty() => name.clone(),
        Step::Field(name) => format!("{text}.{name}"),
        Step::Item(index) => format!("{text}[{index}]"),
    })
}
